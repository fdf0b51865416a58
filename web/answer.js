// One answer: the request, its stream, what it cost.

const kContinuation = 256;  // tokens of a plain completion, which may have no end of its own

/// What to send for the messages up to an answer that is to be written. A completion goes on after what the answer
/// says already.
function requestFor(conversation, answer) {
  const path = conversation.pathTo(answer);
  const body = {...requestSettings(), stream: true, stream_options: {include_usage: true}};
  if (app.model) body.model = app.model;
  if (conversation.completion) {
    body.prompt = settings.system + path.map((node) => node.text).join('');
    body.max_tokens ??= kContinuation;
    return {path: 'v1/completions', body};
  }
  body.messages = path.slice(0, -1).filter((node) => node.text !== '').map(({role, text}) => ({role, content: text}));
  if (settings.system.trim() !== '') body.messages.unshift({role: 'system', content: settings.system});
  return {path: 'v1/chat/completions', body};
}

const kBrokeOff = 'The connection broke off before the answer was complete.';

/// Text of one chunk of either endpoint.
function chunkText(choice) {
  const text = isObject(choice.delta) ? choice.delta.content : isObject(choice.message) ? choice.message.content : choice.text;
  return typeof text === 'string' ? text : '';
}

class Answer {
  /// onChange(answer) is called when the node has more text or figures, onWait(answer, ms) while the prompt is run.
  constructor(conversation, node, onChange, onWait) {
    this.conversation = conversation;
    this.node = node;
    this.onChange = onChange;
    this.onWait = onWait;
    this.controller = new AbortController();
    this.pieces = 0;  // chunks with text, about one for each token
    this.finished = false;  // the server said how it ended
    this.ended = null;  // a promise
  }

  stop() { this.controller.abort(); }

  async run() {
    const {node} = this;
    const clock = setInterval(() => {
      if (this.pieces === 0) this.onWait(this, performance.now() - this.begin);
    }, 100);
    try {
      const {path, body} = requestFor(this.conversation, node);
      this.begin = performance.now();
      const response = await call(path, {
        method: 'POST', signal: this.controller.signal, body: JSON.stringify(body),
        headers: {'Content-Type': 'application/json', Accept: 'text/event-stream'},
      });
      if ((response.headers.get('Content-Type') || '').startsWith('text/event-stream')) {
        await readEvents(response, (event) => this.takeEvent(event));
      } else {
        this.takeChunk(await response.json());
      }
      if (!this.finished) throw new ApiError('broken', kBrokeOff);
    } catch (error) {
      if (error.name === 'AbortError') {
        node.finish = 'stopped';
      } else if (error instanceof ApiError) {
        node.error = {kind: error.kind, message: error.message};
      } else {
        // A browser's own words for it are of no use to anybody.
        node.error = {kind: 'broken', message: error instanceof SyntaxError ? 'The server sent something that is not JSON.' : kBrokeOff};
      }
    } finally {
      clearInterval(clock);
    }
  }

  takeEvent({event, data}) {
    if (data === '[DONE]') return false;
    const chunk = JSON.parse(data);
    if (event === 'error' || (isObject(chunk) && chunk.error)) {
      const error = isObject(chunk) && isObject(chunk.error) ? chunk.error : chunk;
      throw new ApiError('server', shortText(isObject(error) ? error.message : error, 2000) || 'The server gave up on this answer.');
    }
    this.takeChunk(chunk);
    return true;
  }

  takeChunk(chunk) {
    if (!isObject(chunk)) return;
    const {node} = this;
    const choice = Array.isArray(chunk.choices) && isObject(chunk.choices[0]) ? chunk.choices[0] : {};
    const text = chunkText(choice);
    if (text !== '') {
      const now = performance.now();
      node.stats.pieces = ++this.pieces;
      if (this.pieces === 1) {
        this.first = now;
        node.stats.ttft = now - this.begin;
      } else {
        node.stats.tps = (this.pieces - 1) / Math.max(now - this.first, 1) * 1000;
      }
      if (node.text.length + text.length > kMaxText) throw new ApiError('broken', 'The answer is longer than this page keeps, and was cut here.');
      node.text += text;
    }
    if (typeof choice.finish_reason === 'string') {
      node.finish = shortText(choice.finish_reason, 40);
      this.finished = true;
    }
    if (typeof chunk.model === 'string') node.model = shortText(chunk.model, kMaxTitle);
    this.takeUsage(chunk);
    this.onChange(this);
  }

  takeUsage({usage, timings}) {
    const {stats} = this.node;
    const take = (name, value) => { if (isNumber(value) && value >= 0) stats[name] = value; };
    if (isObject(usage)) {
      take('prompt', usage.prompt_tokens);
      take('answer', usage.completion_tokens);
      if (isObject(usage.prompt_tokens_details)) take('cached', usage.prompt_tokens_details.cached_tokens);
      if (stats.answer > 1 && this.pieces > 1) {
        stats.tps = (stats.answer - 1) / Math.max(performance.now() - this.first, 1) * 1000;
      }
    }
    if (!isObject(timings)) return;
    take('cached', timings.cache_n);
    // llama-server's prompt_n is what was run; usage counts the whole prompt.
    if (stats.prompt === undefined && isNumber(timings.prompt_n)) take('prompt', timings.prompt_n + (stats.cached || 0));
    take('answer', timings.predicted_n);
    take('tps', timings.predicted_per_second);
    take('prompt_ms', timings.prompt_ms);
    take('answer_ms', timings.predicted_ms);
  }
}
