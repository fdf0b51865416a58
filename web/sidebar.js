// The list of conversations: search, renaming, deleting, files.

const kMaxFile = 64 << 20;  // bytes of a file to import
const kMaxImport = 5000;  // conversations of one

const kShown = 300;  // conversations listed before one asks for more

function ageGroup(time, now = new Date()) {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const day = 24 * 3600 * 1000;
  if (time >= midnight) return 'Today';
  if (time >= midnight - day) return 'Yesterday';
  return time >= midnight - 7 * day ? 'Last seven days' : 'Earlier';
}

class Sidebar {
  /// actions: open(conversation, node), remove(conversation), changed(conversation), add(conversations)
  constructor(actions) {
    this.actions = actions;
    this.most = kShown;
    this.input = $('search');
    this.input.addEventListener('input', () => this.draw());
    this.input.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.input.value !== '') {
        event.stopPropagation();
        this.input.value = '';
        this.draw();
      } else if (event.key === 'Enter' || event.key === 'ArrowDown') {
        const first = $('conversations').querySelector('.open');
        if (first) event.key === 'Enter' ? first.click() : first.focus();
        event.preventDefault();
      }
    });
    $('export').addEventListener('click', () => this.save([...app.conversations.values()], 'kvasir-conversations'));
    $('import').addEventListener('click', () => $('import-file').click());
    $('import-file').addEventListener('change', () => this.load());
  }

  draw() {
    const query = this.input.value.trim();
    const list = $('conversations');
    const all = [...app.conversations.values()].filter((c) => c.nodes.size);
    $('found').hidden = query === '';
    if (query !== '') {
      const found = searchConversations(all, query);
      $('found').textContent = `${plural(found.length, 'conversation')} with “${shortText(query, 40)}”`;
      list.replaceChildren(make('ul', {}, ...found.slice(0, 200).map((hit) => this.item(hit.conversation, hit))));
      return;
    }
    $('found').textContent = '';
    all.sort((a, b) => b.updated - a.updated);
    const groups = new Map();
    for (const conversation of all.slice(0, this.most)) {
      const group = ageGroup(conversation.updated);
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(conversation);
    }
    list.replaceChildren(...[...groups].flatMap(([name, members]) =>
      [make('h2', {text: name}), make('ul', {}, ...members.map((conversation) => this.item(conversation, null)))]));
    if (all.length > this.most) {
      const more = () => { this.most = Infinity; this.draw(); };
      list.append(make('button', {type: 'button', class: 'open', text: `Show ${count(all.length - this.most)} more`, on: {click: more}}));
    }
    if (!all.length) list.replaceChildren(make('p', {class: 'explain', text: 'Conversations will be listed here.'}));
  }

  item(conversation, hit) {
    const title = conversation.title || 'Untitled';
    const current = conversation === app.current;
    const open = make('button', {type: 'button', class: 'open', 'aria-current': current ? 'true' : null, testid: 'conversation',
                                 title, on: {click: () => this.actions.open(conversation, hit ? hit.node : null)}},
                      make('span', {class: 'name', text: title, dir: 'auto'}));
    if (hit && hit.snippet) {
      const [before, word, after] = hit.snippet;
      open.append(make('span', {class: 'snippet', dir: 'auto'}, before, make('mark', {text: word}), after));
    }
    return make('li', {class: current ? 'current' : null}, open,
      iconButton('edit', `Rename ${title}`, () => this.rename(conversation), {testid: 'rename'}),
      iconButton('bin', `Delete ${title}`, () => this.remove(conversation), {testid: 'delete'}));
  }

  async rename(conversation) {
    const title = await ask('Rename', '', 'Rename', conversation.title);
    if (!titleText(title || '')) return;
    conversation.title = titleText(title);
    conversation.named = true;
    this.actions.changed(conversation);
  }

  async remove(conversation) {
    const title = conversation.title || 'Untitled';
    if (await ask('Delete this conversation?', `“${title}” and all its branches will be gone from this browser.`, 'Delete')) {
      this.actions.remove(conversation);
    }
  }

  save(conversations, name) {
    const file = {format: 'kvasir-conversations', version: 1, conversations: conversations.filter((c) => c.nodes.size).map((c) => c.toRecord())};
    const url = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], {type: 'application/json'}));
    const link = make('a', {href: url, download: `${name}-${new Date().toISOString().slice(0, 10)}.json`});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  async load() {
    const input = $('import-file');
    const file = input.files[0];
    if (!file) return;
    try {
      if (file.size > kMaxFile) throw new Error('it is larger than 64 MiB.');
      let content;
      try {
        content = JSON.parse(await file.text());
      } catch (error) {
        throw new Error('it is not JSON.');
      }
      if (!isObject(content) || content.format !== 'kvasir-conversations' || !Array.isArray(content.conversations)) {
        throw new Error('it was not exported by this page.');
      }
      if (content.version !== 1) throw new Error('a newer version of this page wrote it.');
      if (content.conversations.length > kMaxImport) throw new Error(`it holds more than ${count(kMaxImport)} conversations.`);
      const read = content.conversations.map((record) => Conversation.fromRecord(record));
      const good = read.filter((conversation) => conversation && conversation.nodes.size);
      this.actions.add(good);
      const bad = read.length - good.length;
      showBanner(`Imported ${plural(good.length, 'conversation')}.` +
                 (bad ? ` ${plural(bad, 'entry', 'entries')} of the file could not be read.` : ''));
    } catch (error) {
      showBanner(`This file could not be imported: ${error.message}`);
    }
    input.value = '';
  }
}
