// Settings of sampling: one table, from which the dialog, the checks and the request are made. What is left empty is
// the server's choice.

const kSettings = [
  {name: 'system', label: 'System prompt', kind: 'text', rows: 3, most: 200000, hint: 'Stands before every conversation.'},
  {name: 'temperature', label: 'Temperature', kind: 'number', least: 0, most: 5, step: 0.05, hint: '0 takes the likeliest token.'},
  {name: 'top_p', label: 'Top p', kind: 'number', least: 0.01, most: 1, step: 0.01, hint: 'Tokens that make up this probability.'},
  {name: 'top_k', label: 'Top k', kind: 'integer', least: 0, most: 1000000, step: 1, hint: 'The k likeliest; 0 takes all.'},
  {name: 'min_p', label: 'Min p', kind: 'number', least: 0, most: 1, step: 0.01, hint: 'At least this share of the likeliest.'},
  {name: 'max_tokens', label: 'Max tokens', kind: 'integer', least: 1, most: 10000000, step: 1, other: 'n_predict', hint: 'Where an answer is cut.'},
  {name: 'seed', label: 'Seed', kind: 'integer', least: 0, most: Number.MAX_SAFE_INTEGER, step: 1, hint: 'The same seed, the same text.'},
  {name: 'presence_penalty', label: 'Presence penalty', kind: 'number', least: -2, most: 2, step: 0.1},
  {name: 'frequency_penalty', label: 'Frequency penalty', kind: 'number', least: -2, most: 2, step: 0.1},
  {name: 'repetition_penalty', label: 'Repetition penalty', kind: 'number', least: 0.01, most: 10, step: 0.01, other: 'repeat_penalty'},
  {name: 'stop', label: 'Stop strings', kind: 'text', rows: 2, most: 4000, hint: 'One in a line.'},
  {name: 'format', label: 'Format of the answer', kind: 'choice',
   choices: [['', 'Any text'], ['json_object', 'A JSON object'], ['json_schema', 'JSON by a schema']]},
  {name: 'schema', label: 'JSON schema', kind: 'text', rows: 5, most: 200000, code: true},
];

/// Null, or what is wrong with a value as entered.
function settingProblem(setting, value) {
  if (value === '') return null;
  if (typeof value !== 'string' || value.length > (setting.kind === 'text' ? setting.most : 100)) {
    return `${setting.label}: too long.`;
  }
  if (setting.kind === 'choice') {
    return setting.choices.some(([name]) => name === value) ? null : `${setting.label}: unknown.`;
  }
  if (setting.kind === 'text') return null;
  const number = Number(value);
  const fits = Number.isFinite(number) && number >= setting.least && number <= setting.most;
  if (!fits) return `${setting.label}: a number from ${setting.least} to ${count(setting.most)}.`;
  return setting.kind === 'integer' && !Number.isInteger(number) ? `${setting.label}: a whole number.` : null;
}

function schemaProblem(values) {
  if (values.format !== 'json_schema') return null;
  try {
    return isObject(JSON.parse(values.schema || '')) ? null : 'JSON schema: an object is needed.';
  } catch (error) {
    return `JSON schema: ${error.message}.`;
  }
}

/// {name: value as entered}; what was kept and is wrong is left out.
function loadSettings() {
  const values = {};
  let kept = null;
  try {
    kept = JSON.parse(readLocal('settings') || '{}');
  } catch (error) {
    kept = {};
  }
  for (const setting of kSettings) {
    const value = isObject(kept) && kept[setting.name] !== undefined ? kept[setting.name] : '';
    values[setting.name] = settingProblem(setting, value) === null ? value : '';
  }
  if (schemaProblem(values)) values.format = '';
  return values;
}

let settings = loadSettings();

/// The fields of a request that the settings give.
function requestSettings() {
  const fields = {};
  for (const setting of kSettings) {
    const value = settings[setting.name];
    if (value !== '' && (setting.kind === 'number' || setting.kind === 'integer')) fields[setting.name] = Number(value);
  }
  const stops = settings.stop.split('\n').filter((line) => line !== '');
  if (stops.length) fields.stop = stops;
  if (settings.format === 'json_object') fields.response_format = {type: 'json_object'};
  if (settings.format === 'json_schema') {
    fields.response_format = {type: 'json_schema', json_schema: {name: 'answer', strict: true, schema: JSON.parse(settings.schema)}};
  }
  return fields;
}

function settingField(setting) {
  const id = `setting-${setting.name}`;
  let input;
  if (setting.kind === 'text') {
    input = make('textarea', {id, rows: setting.rows, maxlength: setting.most, class: setting.code ? 'mono' : null,
                              spellcheck: setting.code ? 'false' : null});
  } else if (setting.kind === 'choice') {
    input = make('select', {id}, ...setting.choices.map(([value, text]) => make('option', {value, text})));
  } else {
    input = make('input', {id, type: 'number', min: setting.least, max: setting.most, step: 'any',
                           inputmode: setting.kind === 'integer' ? 'numeric' : 'decimal'});
  }
  input.dataset.testid = id;
  if (setting.hint) input.setAttribute('aria-describedby', `${id}-hint`);
  return make('div', {class: setting.kind === 'text' || setting.kind === 'choice' ? 'field wide' : 'field'},
              make('label', {for: id, text: setting.label}), input,
              setting.hint ? make('small', {id: `${id}-hint`, text: setting.hint}) : null);
}

function openSettings() {
  for (const setting of kSettings) {
    const input = $(`setting-${setting.name}`);
    input.value = settings[setting.name];
    const given = server.defaults[setting.name] ?? server.defaults[setting.other];
    if (setting.kind === 'number' || setting.kind === 'integer') {
      const shown = isNumber(given) && given >= setting.least && given <= setting.most;
      input.placeholder = shown ? String(Math.round(given * 1e4) / 1e4) : 'default';
    }
  }
  $('settings-problem').textContent = '';
  showSchemaField();
  $('settings-dialog').showModal();
}

function showSchemaField() {
  $('setting-schema').parentElement.hidden = $('setting-format').value !== 'json_schema';
}

function saveSettings(event) {
  event.preventDefault();
  const values = {};
  for (const setting of kSettings) values[setting.name] = $(`setting-${setting.name}`).value;
  // A number field gives '' for what is no number.
  const unread = kSettings.find((s) => $(`setting-${s.name}`).validity.badInput);
  const wrong = kSettings.find((s) => settingProblem(s, values[s.name]));
  const problem = unread ? `${unread.label}: no number.` : wrong ? settingProblem(wrong, values[wrong.name]) : schemaProblem(values);
  $('settings-problem').textContent = problem || '';
  if (problem) {
    const setting = unread || wrong || kSettings.find((s) => s.name === 'schema');
    $(`setting-${setting.name}`).focus();
    return;
  }
  settings = values;
  if (!writeLocal('settings', JSON.stringify(values))) {
    showBanner('This browser keeps nothing, so the settings last until the page is closed.');
  }
  $('settings-dialog').close();
}

function setUpSettings() {
  $('fields').append(...kSettings.map(settingField));
  $('setting-format').addEventListener('change', showSchemaField);
  $('settings').addEventListener('click', openSettings);
  $('settings-form').addEventListener('submit', saveSettings);
  $('settings-reset').addEventListener('click', () => {
    for (const setting of kSettings) $(`setting-${setting.name}`).value = '';
    showSchemaField();
  });
}
