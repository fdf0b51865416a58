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
    this.markdown = null;
    this.body = make('div', {class: mine ? 'text' : 'text md'});
    this.notes = make('div', {class: 'notes'});
    this.bar = make('div', {class: 'actions'});
    this.element = make('article', {class: `message ${node.role}`, testid: `message-${node.role}`, tabindex: '-1',
                                    label: mine ? 'You' : 'Answer'}, this.body, this.notes, this.bar);
    // Blocks of Markdown have directions of their own.
    if (mine || conversation.completion) this.body.dir = 'auto';
    else this.markdown = new MarkdownView(this.body);
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
    // A text without an end of its own comes in pieces, which need no note.
    if (node.finish === 'length' && !this.conversation.completion) {
      notes.push(make('p', {class: 'note', text: 'Cut off at the limit: Max tokens in the settings, or the model’s context.'}));
    }
    if (node.finish === 'stopped') notes.push(make('p', {class: 'note', text: 'Stopped.'}));
    if (node.error) {
      const {text, label, act} = this.remedy(node.error);
      notes.push(make('div', {class: 'error', role: 'alert', testid: 'error'}, make('p', {text}),
                      make('button', {type: 'button', text: label, testid: 'retry', on: {click: act}})));
    }
    return notes;
  }

  /// What to say about an error, and what to do about it.
  remedy({kind, message}) {
    const {node, actions} = this;
    if (kind === 'template') {
      return {text: 'This model has no chat template: it goes on with a text instead of answering. ' +
                    'In plain completion mode, your text is sent as it is and the model continues it.',
              label: 'Switch to plain completion', act: () => actions.switchToCompletion(node)};
    }
    if (kind === 'key') return {text: message, label: 'Enter a key', act: () => actions.askKey(node)};
    if (kind === 'full') {
      return {text: `The conversation has outgrown the model’s context (${message}). Begin a new one, or edit an earlier message to go on from there.`,
              label: 'New conversation', act: actions.newConversation};
    }
    return this.goesOn() ? {text: message, label: 'Continue', act: () => actions.goOn(node)}
                         : {text: message, label: 'Try again', act: () => actions.retry(node)};
  }

  /// Whether the model could go on where this text ends.
  goesOn() {
    const {conversation, node} = this;
    return conversation.completion && node.role === 'assistant' && node.text !== '' && conversation.children.get(node.id).length === 0;
  }

  makeActions() {
    const {node, conversation, actions} = this;
    const siblings = conversation.siblings(node);
    const at = siblings.indexOf(node.id);
    const items = [];
    if (this.goesOn() && !node.error && node.finish !== 'stop') {
      items.push(make('button', {type: 'button', class: 'continue', testid: 'continue', text: 'Continue', on: {click: () => actions.goOn(node)}}));
    }
    if (siblings.length > 1) {
      const go = (by) => () => actions.pick(conversation.nodes.get(siblings[at + by]), by < 0 ? 'branch-prev' : 'branch-next');
      items.push(make('span', {class: 'branches'},
        iconButton('prev', 'Earlier branch', go(-1), {testid: 'branch-prev', disabled: at === 0}),
        make('span', {text: `${at + 1} / ${siblings.length}`, label: `Branch ${at + 1} of ${siblings.length}`, role: 'img'}),
        iconButton('next', 'Later branch', go(1), {testid: 'branch-next', disabled: at + 1 === siblings.length})));
    }
    const copy = iconButton('copy', 'Copy this message', () => copyText(node.text, copy), {testid: 'copy'});
    if (node.text !== '') items.push(copy, iconButton('edit', 'Edit in a new branch', () => this.edit(), {testid: 'edit'}));
    // Beside an error without a word stands a button that does the same.
    if (node.role === 'assistant' && !(node.error && node.text === '')) {
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

const kMessages = 200;  // shown before one asks for earlier ones

/// Keeps one view for each message shown, in order.
class MessageList {
  constructor(element, scroller, actions) {
    this.element = element;
    this.scroller = scroller;
    this.actions = {...actions, followEnd: () => this.followEnd()};
    this.views = new Map();  // node id: view
    this.conversation = null;
    this.following = true;
    this.top = this.height = 0;  // of the scroller, when it last moved
    scroller.addEventListener('scroll', () => this.scrolled(), {passive: true});
    // A field that grows or a keyboard that opens leaves less room.
    new ResizeObserver(() => this.followEnd()).observe(scroller);
    $('latest').addEventListener('click', () => this.toEnd());
  }

  /// The last messages, and the earlier ones up to a node.
  show(conversation, running, node = null) {
    const whole = conversation.path();
    const other = this.conversation !== conversation || this.completion !== conversation.completion;
    if (other) {
      this.views.clear();
      this.most = kMessages;
    }
    if (node) this.most = Math.max(this.most, whole.length - whole.indexOf(node));
    const earlier = Math.max(0, whole.length - this.most);
    const path = whole.slice(earlier);
    this.conversation = conversation;
    this.completion = conversation.completion;
    const views = new Map();
    for (const node of path) {
      views.set(node.id, this.views.get(node.id) || new MessageView(conversation, node, this.actions));
    }
    this.views = views;
    this.element.classList.toggle('flow', conversation.completion);
    const elements = path.length ? [...views.values()].map((view) => view.element) : [welcome(conversation.completion, this.actions.suggest)];
    if (earlier) elements.unshift(this.earlierButton(earlier, path[0], running));
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

  earlierButton(earlier, first, running) {
    const show = () => {
      const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
      this.most += 5 * kMessages;
      this.following = false;
      this.show(this.conversation, running);
      this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
      this.view(first).element.focus();
    };
    return make('button', {type: 'button', class: 'earlier', testid: 'earlier', text: `Show earlier messages (${count(earlier)})`, on: {click: show}});
  }

  view(node) { return this.views.get(node.id); }

  /// The reader lets go of the end by the smallest move up, and takes hold of it again by coming near it.
  scrolled() {
    const {scrollTop, scrollHeight} = this.scroller;
    // What gets shorter moves by itself.
    const up = scrollTop < this.top - 1 && scrollHeight >= this.height;
    if (up) this.following = false;
    else if (scrollTop > this.top && this.fromEnd() < 60) this.following = true;
    this.remember();
    $('latest').hidden = this.following || this.fromEnd() < 60;
  }

  remember() {
    this.top = this.scroller.scrollTop;
    this.height = this.scroller.scrollHeight;
  }

  fromEnd() {
    const {scrollTop, scrollHeight, clientHeight} = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  followEnd() {
    if (this.following) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      // Now, since the event comes later than the reader's next move may.
      this.remember();
    }
    $('latest').hidden = this.following || this.fromEnd() < 60;
  }

  toEnd() {
    this.following = true;
    this.followEnd();
  }
}

const kIdeas = {
  chat: ['Explain a KV cache to somebody who knows no machine learning', 'Write a Python function that merges two sorted lists',
         'Compare tea and coffee in a small table'],
  completion: ['Once upon a time there was a', 'The old king had three sons, and the youngest', '“Who are you?” said the cat.'],
};

/// What stands where there are no messages yet.
function welcome(completion, suggest) {
  const ideas = completion ? kIdeas.completion : kIdeas.chat;
  return make('div', {class: 'welcome'},
    make('p', {class: 'lead', text: completion ? 'How does it begin?' : 'What shall we write?'}),
    make('p', {text: completion
      ? 'This model has no chat template: it was not trained to converse. Write the beginning of a text, and it goes on from there.'
      : 'Answers come from the machine that serves this page, and conversations stay in this browser.'}),
    make('div', {class: 'ideas'}, ...ideas.map((text) =>
      make('button', {type: 'button', testid: 'idea', text, on: {click: () => suggest(text)}}))));
}
