// The messages of the conversation that is shown.

class MessageView {
  constructor(conversation, node, actions) {
    this.conversation = conversation;
    this.node = node;
    this.actions = actions;
    this.shown = 0;  // characters that are rendered
    this.frame = 0;
    this.cost = 0;  // ms of the last rendering
    this.last = 0;
    const mine = node.role === 'user';
    this.body = make('div', {class: mine ? 'text' : 'text md', dir: 'auto'});
    this.notes = make('div', {class: 'notes'});
    this.bar = make('div', {class: 'actions'});
    this.element = make('article', {class: `message ${node.role}`, testid: `message-${node.role}`,
                                    label: mine ? 'You' : 'Answer'}, this.body, this.notes, this.bar);
    this.markdown = mine || conversation.completion ? null : new MarkdownView(this.body);
    this.render(true);
  }

  /// Text that streams in is rendered at most once a frame, and for at most a fifth of the time.
  changed() {
    if (this.frame) return;
    const step = () => {
      if (performance.now() - this.last < 4 * this.cost) {
        this.frame = requestAnimationFrame(step);
        return;
      }
      this.frame = 0;
      this.render(false);
      this.actions.followEnd();
    };
    this.frame = requestAnimationFrame(step);
  }

  render(done) {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const begin = performance.now();
    if (!this.markdown) this.body.textContent = this.node.text;
    else if (done && this.shown === 0) this.markdown.set(this.node.text);
    else this.markdown.update(this.node.text, done);
    this.shown = this.node.text.length;
    this.last = performance.now();
    this.cost = this.last - begin;
  }

  /// Notes, actions and the place among siblings.
  refresh(running) {
    const {node} = this;
    this.element.classList.toggle('running', running);
    this.element.classList.toggle('empty', running && node.text === '');
    this.element.setAttribute('aria-busy', String(running));
    this.notes.replaceChildren(...(running ? [] : this.makeNotes()));
    this.bar.replaceChildren(...(running ? [] : this.makeActions()));
  }

  makeNotes() {
    const {node} = this;
    const notes = [];
    if (node.finish === 'length') notes.push(make('p', {class: 'note', text: 'Cut at the most tokens that were allowed.'}));
    if (node.finish === 'stopped') notes.push(make('p', {class: 'note', text: 'Stopped.'}));
    if (node.error) {
      const template = node.error.kind === 'template';
      const text = template ? 'This model has no chat template: it goes on with a text instead of answering. ' +
        'In plain completion mode, your text is sent as it is and the model continues it.' : node.error.message;
      const act = template ? () => this.actions.switchToCompletion(node)
        : node.error.kind === 'key' ? () => this.actions.askKey(node) : () => this.actions.retry(node);
      const label = template ? 'Switch to plain completion' : node.error.kind === 'key' ? 'Enter a key' : 'Try again';
      notes.push(make('div', {class: 'error', role: 'alert', testid: 'error'}, make('p', {text}),
                      make('button', {type: 'button', text: label, testid: 'retry', on: {click: act}})));
    }
    return notes;
  }

  makeActions() {
    const {node, conversation, actions} = this;
    const siblings = conversation.siblings(node);
    const at = siblings.indexOf(node.id);
    const items = [];
    if (siblings.length > 1) {
      const go = (by) => () => actions.pick(conversation.nodes.get(siblings[at + by]), by < 0 ? 'branch-prev' : 'branch-next');
      items.push(make('span', {class: 'branches'},
        iconButton('prev', 'Earlier branch', go(-1), {testid: 'branch-prev', disabled: at === 0}),
        make('span', {text: `${at + 1} / ${siblings.length}`, label: `Branch ${at + 1} of ${siblings.length}`, role: 'img'}),
        iconButton('next', 'Later branch', go(1), {testid: 'branch-next', disabled: at + 1 === siblings.length})));
    }
    const copy = iconButton('copy', 'Copy this message', () => copyText(node.text, copy), {testid: 'copy'});
    if (node.text !== '') items.push(copy, iconButton('edit', 'Edit in a new branch', () => this.edit(), {testid: 'edit'}));
    if (node.role === 'assistant') {
      items.push(iconButton('again', 'Answer again in a new branch', () => actions.regenerate(node), {testid: 'regenerate'}));
      if (isNumber(node.stats.tps)) {
        items.push(make('button', {type: 'button', class: 'figures', title: 'Show in the glass box',
                                   text: figuresLine(node.stats), on: {click: () => actions.showFigures(node)}}));
      }
    }
    return items;
  }

  edit() {
    const {node, actions} = this;
    const area = make('textarea', {rows: 3, label: 'Edit the message', testid: 'edit-text', maxlength: 1000000});
    area.value = node.text;
    const leave = () => {
      form.replaceWith(this.body);
      this.bar.hidden = this.notes.hidden = false;
      const again = this.bar.querySelector('[data-testid=edit]');
      if (again) again.focus();
    };
    const form = make('form', {class: 'edit'}, area, make('div', {class: 'buttons'},
      make('button', {type: 'button', text: 'Cancel', on: {click: leave}}),
      make('button', {type: 'submit', class: 'primary', testid: 'edit-save', text: node.role === 'user' ? 'Send' : 'Keep as a branch'})));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (area.value.trim() === '') return;
      leave();
      actions.saveEdit(node, area.value);
    });
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        leave();
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && node.role === 'user') {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.bar.hidden = this.notes.hidden = true;
    this.body.replaceWith(form);
    growTextarea(area);
    area.addEventListener('input', () => growTextarea(area));
    area.focus();
  }
}

const figuresLine = (stats) => [isNumber(stats.answer) ? plural(stats.answer, 'token') : null, `${speed(stats.tps)} tokens/s`,
  isNumber(stats.ttft) ? `first after ${milliseconds(stats.ttft)}` : null].filter((part) => part).join(' · ');

function growTextarea(area) {
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight + 2}px`;
}

/// Keeps one view for each message shown, in order.
class MessageList {
  constructor(element, scroller, actions) {
    this.element = element;
    this.scroller = scroller;
    this.actions = {...actions, followEnd: () => this.followEnd()};
    this.views = new Map();  // node id: view
    this.conversation = null;
    this.following = true;
    scroller.addEventListener('scroll', () => {
      this.following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
      $('latest').hidden = this.following;
    }, {passive: true});
    $('latest').addEventListener('click', () => this.toEnd());
  }

  show(conversation, running) {
    const path = conversation.path();
    const other = this.conversation !== conversation || this.completion !== conversation.completion;
    if (other) this.views.clear();
    this.conversation = conversation;
    this.completion = conversation.completion;
    const views = new Map();
    for (const node of path) {
      views.set(node.id, this.views.get(node.id) || new MessageView(conversation, node, this.actions));
    }
    this.views = views;
    const elements = path.length ? [...views.values()].map((view) => view.element) : [welcome()];
    // Elements that stay are not moved: that would end an edit and have the log read out again.
    const present = new Set(elements);
    for (const child of [...this.element.children]) if (!present.has(child)) child.remove();
    elements.forEach((element, i) => {
      if (this.element.children[i] !== element) this.element.insertBefore(element, this.element.children[i] || null);
    });
    for (const view of views.values()) view.refresh(running === view.node.id);
    if (other) this.toEnd();
    else this.followEnd();
  }

  view(node) { return this.views.get(node.id); }

  followEnd() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  toEnd() {
    this.following = true;
    $('latest').hidden = true;
    this.followEnd();
  }
}

function welcome() {
  return make('div', {class: 'welcome'}, make('p', {class: 'lead', text: 'What shall we write?'}),
    make('p', {text: 'Answers come from the machine that serves this page, conversations stay in this browser, and the ' +
                     'glass box shows what the engine does meanwhile.'}));
}
