// A conversation is a tree: editing or asking again adds a sibling, and picks say which branch is shown.

const kRoot = '';  // parent of the first messages
const kMaxText = 4 << 20;  // characters of a message
const kMaxNodes = 20000;
const kMaxTitle = 200;
const kStats = ['ttft', 'tps', 'prompt', 'cached', 'answer', 'pieces', 'prompt_ms', 'answer_ms'];

const newId = () => crypto.randomUUID ? crypto.randomUUID()
  : [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');

class Conversation {
  constructor() {
    this.id = newId();
    this.title = '';
    this.named = false;  // by the user
    this.completion = false;  // text goes on as it is, without a chat template
    this.created = this.updated = Date.now();
    this.nodes = new Map();  // id: {id, parent, role, text, time, model, finish, error, stats}; parents come first
    this.children = new Map([[kRoot, []]]);
    this.picks = new Map();  // parent: the child that is shown
  }

  add(parent, role, text, id = newId()) {
    const node = {id, parent, role, text, time: Date.now(), model: '', finish: '', error: null, stats: {}};
    this.nodes.set(id, node);
    this.children.set(id, []);
    this.children.get(parent).push(id);
    this.picks.set(parent, id);
    if (!this.title && role === 'user') this.title = titleOf(text);
    return node;
  }

  /// The messages shown, first to last.
  path() {
    const path = [];
    for (let at = this.picked(kRoot); at; at = this.picked(at.id)) path.push(at);
    return path;
  }

  /// The messages before a node and itself.
  pathTo(node) {
    const path = [];
    for (let at = node; at; at = this.nodes.get(at.parent)) path.push(at);
    return path.reverse();
  }

  picked(parent) {
    const siblings = this.children.get(parent);
    const pick = this.nodes.get(this.picks.get(parent));
    return pick && pick.parent === parent ? pick : this.nodes.get(siblings[siblings.length - 1]);
  }

  siblings(node) { return this.children.get(node.parent); }

  pick(node) { this.picks.set(node.parent, node.id); }

  toRecord() {
    return {
      id: this.id, title: this.title, named: this.named, completion: this.completion, created: this.created,
      updated: this.updated, nodes: [...this.nodes.values()].map((node) => ({...node})), picks: [...this.picks],
    };
  }

  /// Checks everything, since a record may be a stranger's file. Null where it is no conversation.
  static fromRecord(record) {
    if (!isObject(record) || !Array.isArray(record.nodes) || record.nodes.length > kMaxNodes) return null;
    const made = new Conversation();
    if (isId(record.id)) made.id = record.id;
    made.created = isNumber(record.created) ? record.created : made.created;
    made.updated = isNumber(record.updated) ? record.updated : made.updated;
    for (const given of record.nodes) {
      const parent = isObject(given) && given.parent !== kRoot ? made.nodes.get(given.parent) : null;
      if (!isObject(given) || !isId(given.id) || made.nodes.has(given.id) || parent === undefined) return null;
      const role = given.role;
      // Questions and answers take turns, and a question comes first.
      if (role !== (parent && parent.role === 'user' ? 'assistant' : 'user')) return null;
      if (typeof given.text !== 'string' || given.text.length > kMaxText) return null;
      const node = made.add(given.parent, role, given.text, given.id);
      node.time = isNumber(given.time) ? given.time : made.created;
      node.model = shortText(given.model, kMaxTitle);
      node.finish = shortText(given.finish, 40);
      if (isObject(given.error)) {
        node.error = {kind: shortText(given.error.kind, 40), message: shortText(given.error.message, 2000)};
      }
      for (const name of kStats) {
        if (isObject(given.stats) && isNumber(given.stats[name]) && given.stats[name] >= 0) {
          node.stats[name] = given.stats[name];
        }
      }
    }
    made.picks.clear();
    for (const pick of Array.isArray(record.picks) ? record.picks : []) {
      const picked = Array.isArray(pick) ? made.nodes.get(pick[1]) : undefined;
      if (picked && picked.parent === pick[0]) {
        made.picks.set(pick[0], pick[1]);
      }
    }
    made.title = titleText(record.title) || made.title;
    made.named = record.named === true;
    made.completion = record.completion === true;
    return made;
  }
}

const isId = (x) => typeof x === 'string' && /^[\w-]{1,64}$/.test(x);
const shortText = (x, most) => typeof x === 'string' ? x.slice(0, most) : '';

/// In one line, without what cannot be seen or turns the direction of what stands beside it.
const titleText = (x) =>
  shortText(x, kMaxTitle).replace(/\s+/g, ' ').replace(/[\p{Cc}\u200b\u200e\u200f\u061c\u2060\ufeff\u202a-\u202e\u2066-\u2069]/gu, '').trim();

function titleOf(text) {
  const line = titleText(text.trim().split('\n', 1)[0]);
  const characters = [...line.slice(0, 240)];
  return characters.length > 60 ? characters.slice(0, 59).join('') + '…' : line;
}

/// As long as the text, so that places in it are places in the text ("İ" alone would become two).
const lower = (text) => text.replace(/\u0130/g, 'i').toLowerCase();

/// Where all words of a query occur: {conversation, node, snippet: [before, hit, after]}, newest first, one for each
/// conversation. A title counts as text.
function searchConversations(conversations, query) {
  const words = lower(query).split(/\s+/).filter((word) => word).slice(0, 16);
  const found = [];
  for (const conversation of conversations) {
    const hits = (text) => {
      const known = lower(text);
      return words.every((word) => known.includes(word));
    };
    const node = [...conversation.nodes.values()].reverse().find((n) => hits(n.text));
    if (node) found.push({conversation, node, snippet: snippetOf(node.text, words[0])});
    else if (hits(conversation.title)) found.push({conversation, node: null, snippet: null});
  }
  return found.sort((a, b) => b.conversation.updated - a.conversation.updated);
}

function snippetOf(text, word) {
  const at = lower(text).indexOf(word);
  const from = Math.max(0, at - 28);
  const tidy = (s) => s.replace(/\s+/g, ' ');
  return [(from > 0 ? '…' : '') + tidy(text.slice(from, at)), tidy(text.slice(at, at + word.length)),
          tidy(text.slice(at + word.length, at + word.length + 60))];
}
