// The page's parts together.

const app = {conversations: new Map(), current: null, model: '', answers: new Map(), figures: null};
let saver = null;
let sidebar = null;
let box = null;
let list = null;
const narrow = matchMedia('(max-width: 760px)');
const noRoomForBox = matchMedia('(max-width: 1180px)');
const prefersDark = matchMedia('(prefers-color-scheme: dark)');

// --- Conversations

function newConversation() {
  // An empty one is as good as a new one.
  const empty = [...app.conversations.values()].find((c) => c.nodes.size === 0);
  const conversation = empty || new Conversation();
  conversation.completion = !server.template;
  app.conversations.set(conversation.id, conversation);
  openConversation(conversation);
  if (!narrow.matches) $('composer').focus();
}

function openConversation(conversation, node = null) {
  if (node) for (const at of conversation.pathTo(node)) conversation.pick(at);
  app.current = conversation;
  writeSession('open', conversation.id);
  closeDrawers();
  showConversation(node);
  const last = conversation.path().reverse().find((n) => n.role === 'assistant');
  showFigures(last || null);
  const view = node && list.view(node);
  if (view) view.element.scrollIntoView({block: 'center'});
}

/// With the messages from a node on, or the last ones.
function showConversation(node = null) {
  const conversation = app.current;
  const answer = app.answers.get(conversation.id);
  list.show(conversation, answer ? answer.node.id : null, node);
  const title = conversation.title || 'New conversation';
  $('title').textContent = title;
  document.title = conversation.title ? `${title} – kvasir` : 'kvasir';
  $('mode-note').textContent = conversation.completion ? 'Plain completion: the model goes on with the text' : '';
  $('composer').placeholder = !conversation.completion ? 'Write a message' : conversation.nodes.size ? 'Add to the text' : 'Begin a text';
  $('send').hidden = Boolean(answer);
  $('stop').hidden = !answer;
  sidebar.draw();
  composerChanged();
}

/// To be saved, unless it was deleted meanwhile.
function changed(conversation) {
  conversation.updated = Date.now();
  if (app.conversations.get(conversation.id) === conversation) saver.later(conversation);
}

async function removeConversation(conversation) {
  const answer = app.answers.get(conversation.id);
  if (answer) answer.stop();
  app.conversations.delete(conversation.id);
  saver.forget(conversation.id);
  if (app.current === conversation) newConversation();
  else sidebar.draw();
}

function addConversations(read) {
  for (const conversation of read) {
    if (app.conversations.has(conversation.id)) conversation.id = newId();
    app.conversations.set(conversation.id, conversation);
    saver.later(conversation);
  }
  saver.now();
  sidebar.draw();
}

// --- Answers

function send(text) {
  const conversation = app.current;
  const path = conversation.path();
  const last = path[path.length - 1];
  // A question that got no answer is taken back for the new one.
  const parent = !last ? kRoot : last.role === 'assistant' ? last.id : last.parent;
  const node = conversation.add(parent, 'user', text);
  generate(conversation, node);
}

/// Ends the answer that may be under way.
async function stopAnswer(conversation) {
  const answer = app.answers.get(conversation.id);
  if (!answer) return;
  answer.stop();
  await answer.ended;
}

/// Writes an answer to a question.
async function generate(conversation, question) {
  await stopAnswer(conversation);
  await write(conversation, conversation.add(question.id, 'assistant', ''));
}

/// Has the model go on where a text ends.
async function goOn(node) {
  const conversation = app.current;
  await stopAnswer(conversation);
  Object.assign(node, {finish: '', error: null, stats: {}});
  await write(conversation, node);
}

async function write(conversation, node) {
  const answer = new Answer(conversation, node, answerChanged, (one, ms) => {
    if (app.figures === one.node) box.showWait(ms);
  });
  app.answers.set(conversation.id, answer);
  changed(conversation);
  if (app.current === conversation) {
    showFigures(node);
    showConversation();
    list.toEnd();
  }
  answer.ended = answer.run().then(() => app.answers.delete(conversation.id));
  await answer.ended;
  changed(conversation);
  saver.now();
  // Deleted, or replaced by what another tab has saved.
  if (app.conversations.get(conversation.id) !== conversation) return;
  if (app.figures === node) showFigures(node);
  const view = app.current === conversation && list.view(node);
  if (view) view.render(true);
  if (app.current === conversation) showConversation();
  else sidebar.draw();
  if (!node.error) serverAnswers();
  else if (node.error.kind === 'gone') serverGone();
  else if (node.error.kind === 'broken') learnServer();  // whether it is there still
  else if (node.error.kind === 'key') askForKey(node.error.message, () => retry(node));
}

function answerChanged(answer) {
  if (app.current === answer.conversation) {
    const view = list.view(answer.node);
    if (view) {
      view.element.classList.remove('empty');
      view.changed();
    }
  }
  if (app.figures === answer.node) showFigures(answer.node);
  changed(answer.conversation);
}

/// Answers the same question once more: an answer that failed without a word gives way.
function retry(node) {
  const conversation = app.current;
  const question = conversation.nodes.get(node.parent);
  if (!question) return;
  if (node.text === '') {
    const siblings = conversation.siblings(node);
    siblings.splice(siblings.indexOf(node.id), 1);
    conversation.nodes.delete(node.id);
    conversation.children.delete(node.id);
    conversation.picks.delete(node.id);
  }
  generate(conversation, question);
}

function showFigures(node) {
  app.figures = node;
  box.showAnswer(node ? node.stats : null);
}

const messageActions = {
  retry,
  goOn,
  newConversation,
  suggest(text) {
    $('composer').value = text;
    composerChanged();
    $('composer').focus();
  },
  regenerate: (node) => generate(app.current, app.current.nodes.get(node.parent)),
  pick(node, control) {
    app.current.pick(node);
    changed(app.current);
    showConversation();
    const view = list.view(node);
    const button = view && view.element.querySelector(`[data-testid=${control}]`);
    if (button && !button.disabled) button.focus();
    else if (button) button.parentElement.querySelector('button:enabled').focus();
  },
  saveEdit(node, text) {
    const conversation = app.current;
    const edited = conversation.add(node.parent, node.role, text);
    changed(conversation);
    if (node.role === 'user') generate(conversation, edited);
    else showConversation();
  },
  switchToCompletion(node) {
    app.current.completion = true;
    server.template = false;
    retry(node);
  },
  askKey: (node) => askForKey('', () => retry(node)),
  showFigures(node) {
    showFigures(node);
    toggleBox(true);
  },
};

// --- The server

let watching = 0;

/// What the server says about itself, taken in.
async function meetServer() {
  await loadServer();
  showModels();
  // A conversation that has begun stays of its kind.
  for (const conversation of app.conversations.values()) {
    if (conversation.nodes.size || conversation.completion === !server.template) continue;
    conversation.completion = !server.template;
    if (conversation === app.current) showConversation();
  }
  serverAnswers();
  box.again();
}

async function learnServer() {
  try {
    await meetServer();
  } catch (error) {
    if (error.kind === 'key') askForKey(error.message, learnServer);
    else if (error.kind === 'gone') serverGone();
    else showBanner(`The server's list of models cannot be read: ${error.message}`, learnServer);
  }
}

function serverAnswers() {
  if (server.reachable === false) hideBanner();
  server.reachable = true;
  $('dot').className = 'dot on';
  $('model-label').title = 'The server answers';
}

/// Asks again now and then, until it answers.
function serverGone(wait = 2000) {
  server.reachable = false;
  $('dot').className = 'dot off';
  $('model-label').title = 'The server does not answer';
  showBanner('The server cannot be reached. What you have written is kept; this page tries again by itself.', () => serverGone(0), 'Try now');
  clearTimeout(watching);
  watching = setTimeout(async () => {
    try {
      await meetServer();
    } catch (error) {
      if (error.kind === 'gone') serverGone(Math.min(Math.max(wait, 1000) * 2, 15000));
      else learnServer();
    }
  }, wait);
}

function showModels() {
  const select = $('model');
  const kept = readLocal('model');
  app.model = server.models.includes(kept) ? kept : server.models[0] || '';
  select.replaceChildren(...server.models.map((id) => make('option', {value: id, text: id})));
  select.value = app.model;
  select.disabled = server.models.length < 2;
  select.title = app.model;
}

function askForKey(reason, then) {
  const dialog = $('key-dialog');
  if (dialog.open) return;
  $('key-reason').textContent = reason || 'It is sent to this server only, as a bearer token.';
  $('api-key').value = apiKey();
  $('key-remember').checked = Boolean(readLocal('key'));
  dialog.returnValue = '';
  dialog.showModal();
  dialog.addEventListener('close', () => {
    if (dialog.returnValue === '') return;
    const used = dialog.returnValue === 'use';
    setApiKey(used ? $('api-key').value.trim() : '', $('key-remember').checked);
    $('api-key').value = '';
    if (!used) return;
    if (then) then();
    if (then !== learnServer) learnServer();
  }, {once: true});
}

// --- Panels and themes

function toggleBox(open) {
  $('app').classList.toggle('no-box', !open);
  $('box-toggle').setAttribute('aria-expanded', String(open));
  if (noRoomForBox.matches) $('shade').hidden = !open;
  else writeLocal('box', open ? 'open' : 'closed');
  box.follow();
  if (open) box.draw();
  if (open && noRoomForBox.matches) $('box-close').focus();
}

function toggleDrawer(open) {
  $('app').classList.toggle('drawer', open);
  $('sidebar-open').setAttribute('aria-expanded', String(open));
  $('shade').hidden = !open;
  if (open) $('sidebar-close').focus();
}

function closeDrawers() {
  if ($('app').classList.contains('drawer')) {
    toggleDrawer(false);
    $('sidebar-open').focus();
  }
  if (noRoomForBox.matches && !$('app').classList.contains('no-box')) {
    toggleBox(false);
    $('box-toggle').focus();
  }
}

function applyTheme() {
  const kept = readLocal('theme');
  const theme = kept === 'dark' || kept === 'light' ? kept : prefersDark.matches ? 'dark' : 'light';
  document.documentElement.dataset.theme = theme;
  $('theme-name').textContent = kept === 'dark' ? 'Dark' : kept === 'light' ? 'Light' : 'System';
  $('theme').setAttribute('aria-label', `Theme: ${$('theme-name').textContent}`);
  if (box) box.draw();
}

/// System, then the other one than the system's, then the system's own by name.
function nextTheme() {
  const kept = readLocal('theme');
  const other = prefersDark.matches ? 'light' : 'dark';
  const next = kept === other ? (other === 'dark' ? 'light' : 'dark') : kept ? null : other;
  if (!writeLocal('theme', next)) document.documentElement.dataset.theme = next || other;
  else applyTheme();
}

// --- Keys

function composerChanged() {
  growTextarea($('composer'));
  $('send').disabled = $('composer').value.trim() === '';
}

function composerKeys(event) {
  const composer = $('composer');
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && !matchMedia('(pointer: coarse)').matches) {
    event.preventDefault();
    $('compose').requestSubmit();
  } else if (event.key === 'ArrowUp' && composer.value === '') {
    const edits = $('messages').querySelectorAll('.user [data-testid=edit]');
    if (!edits.length) return;
    event.preventDefault();
    edits[edits.length - 1].click();
  }
}

function pageKeys(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (document.querySelector('dialog[open]') || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    const act = {k: focusSearch, O: newConversation, o: event.shiftKey ? newConversation : null,
                 b: () => toggleBox($('app').classList.contains('no-box'))}[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  } else if (event.key === 'Escape') {
    const answer = app.answers.get(app.current.id);
    if (noRoomForBox.matches && !$('shade').hidden) closeDrawers();
    else if (answer) answer.stop();
  } else if (!typing && event.key === '/') {
    event.preventDefault();
    $('composer').focus();
  } else if (event.key === '?' && (!typing || (event.target === $('composer') && $('composer').value === ''))) {
    event.preventDefault();
    $('help-dialog').showModal();
  }
}

function focusSearch() {
  if (narrow.matches) toggleDrawer(true);
  $('search').focus();
  $('search').select();
}

// --- Start

function listen() {
  const click = (id, f) => $(id).addEventListener('click', f);
  click('new-chat', newConversation);
  click('theme', nextTheme);
  click('help', () => $('help-dialog').showModal());
  click('key', () => askForKey('', learnServer));
  click('box-toggle', () => toggleBox($('app').classList.contains('no-box')));
  click('box-close', () => { toggleBox(false); $('box-toggle').focus(); });
  click('sidebar-open', () => toggleDrawer(true));
  click('sidebar-close', closeDrawers);
  click('shade', closeDrawers);
  click('banner-close', hideBanner);
  click('banner-action', () => { const act = bannerAction; hideBanner(); if (act) act(); });
  click('stop', () => { const answer = app.answers.get(app.current.id); if (answer) answer.stop(); $('composer').focus(); });
  for (const button of document.querySelectorAll('dialog [data-close]')) {
    button.addEventListener('click', () => button.closest('dialog').close(''));
  }
  for (const [form, value] of [['ask-form', 'yes'], ['key-form', 'use']]) {
    $(form).addEventListener('submit', (event) => { event.preventDefault(); $(form).closest('dialog').close(value); });
  }
  click('key-forget', () => $('key-dialog').close('forget'));
  $('model').addEventListener('change', () => { app.model = $('model').value; writeLocal('model', app.model); });
  $('compose').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = $('composer').value;
    if (text.trim() === '' || app.answers.has(app.current.id)) return;
    $('composer').value = '';
    send(text);
  });
  $('composer').addEventListener('input', composerChanged);
  $('composer').addEventListener('keydown', composerKeys);
  document.addEventListener('keydown', pageKeys);
  prefersDark.addEventListener('change', applyTheme);
  noRoomForBox.addEventListener('change', () => { $('shade').hidden = true; toggleBox(!noRoomForBox.matches && readLocal('box') !== 'closed'); });
  addEventListener('pagehide', () => saver.now());
  addEventListener('resize', composerChanged);
  if (saver.channel) saver.channel.addEventListener('message', ({data}) => takeOver(data));
}

/// Another tab has saved or deleted a conversation.
async function takeOver(id) {
  if (!isId(id) || app.answers.has(id)) return;
  const record = await saver.store.get(id).catch(() => undefined);
  const conversation = record === undefined ? null : Conversation.fromRecord(record);
  const current = app.current && app.current.id === id;
  // What is being edited here stays until it is sent.
  if (current && document.querySelector('.edit')) return;
  if (conversation) app.conversations.set(id, conversation);
  else app.conversations.delete(id);
  if (!current) sidebar.draw();
  else if (conversation) openConversation(conversation);
  else newConversation();
}

async function start() {
  const apple = /Mac|iPhone|iPad/.test(navigator.platform || '');
  for (const key of document.querySelectorAll('.mod')) key.textContent = apple ? '⌘' : 'Ctrl';
  $('search-key').textContent = apple ? '⌘K' : 'Ctrl K';
  const store = await Store.open();
  saver = new Saver(store);
  sidebar = new Sidebar({open: openConversation, remove: removeConversation, add: addConversations,
                         changed: (conversation) => { changed(conversation); showConversation(); }});
  list = new MessageList($('messages'), $('scroll'), messageActions);
  box = new GlassBox();
  setUpSettings();
  listen();
  let broken = 0;
  try {
    for (const record of await store.all()) {
      const conversation = Conversation.fromRecord(record);
      if (conversation) app.conversations.set(conversation.id, conversation);
      else ++broken;
    }
  } catch (error) {
    saver.store = new Store(null);
  }
  applyTheme();
  const open = app.conversations.get(readSession('open'));
  if (open) openConversation(open);
  else newConversation();
  toggleBox(!noRoomForBox.matches && readLocal('box') !== 'closed');
  if (!saver.store.db) showBanner('This browser keeps nothing here: conversations last until the page is closed.');
  else if (broken) showBanner(`${plural(broken, 'saved conversation')} could not be read and ${broken === 1 ? 'was' : 'were'} left as found.`);
  learnServer();
}

start();
