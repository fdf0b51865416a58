// Speaking to the server: the key, errors in words, what the server says about itself.

/// kind: 'gone' (no answer), 'key' (401, 403), 'template' (no chat template), 'full' (the model's context), 'broken' (the
/// stream), 'server'.
class ApiError extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

const server = {models: [], defaults: {}, template: true, reachable: null};

const apiKey = () => readSession('key') || readLocal('key') || '';

/// Kept for this tab, or on request for this device.
function setApiKey(key, remember) {
  writeLocal('key', remember && key ? key : null);
  if (!writeSession('key', key || null)) showBanner('This browser keeps nothing, so it cannot use a key.');
}

async function errorOf(response) {
  let message = '';
  let code = '';
  try {
    const body = JSON.parse((await response.text()).slice(0, 65536));
    const error = isObject(body) && body.error !== undefined ? body.error : body;
    message = typeof error === 'string' ? error : isObject(error) && typeof error.message === 'string' ? error.message : '';
    code = isObject(error) ? String(error.code ?? '') : '';
  } catch (error) {
    // No JSON: the status alone has to say it.
  }
  message = message.slice(0, 2000);
  if (response.status === 401 || response.status === 403) {
    return new ApiError('key', message || 'The server wants an API key.', response.status);
  }
  if (code === 'no_chat_template') return new ApiError('template', message, response.status);
  if (code === 'context_length_exceeded') return new ApiError('full', message, response.status);
  if (response.status === 429) return new ApiError('server', message || 'The server has too much to do; try again later.', 429);
  return new ApiError('server', message || `The server answered ${response.status} ${response.statusText}.`, response.status);
}

/// fetch with the key. Throws ApiError, or AbortError when the signal says so.
async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = apiKey();
  if (key) headers.set('Authorization', `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, {...options, headers, cache: 'no-store', credentials: 'same-origin', redirect: 'error'});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('gone', key && /[^\x20-\x7e]/.test(key)
      ? 'The API key holds characters that no header can carry.'
      : 'The server cannot be reached. Is it running?');
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/// The list of models and the defaults. A server without /props is fine.
async function loadServer() {
  const list = await (await call('v1/models')).json();
  const entries = isObject(list) && Array.isArray(list.data) ? list.data : [];
  server.models = entries.filter((m) => isObject(m) && typeof m.id === 'string').map((m) => m.id).slice(0, 1000);
  try {
    const props = await (await call('props')).json();
    const given = isObject(props) ? props.default_generation_settings : null;
    server.defaults = isObject(given) ? {...given, ...(isObject(given.params) ? given.params : {})} : {};
    server.template = !(isObject(props) && props.chat_template === '');
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    server.defaults = {};
  }
}
