// A model's text as elements. It is hostile: raw HTML stays text, images become links, and what marked makes of the
// rest passes DOMPurify with a short list of tags.

/// Knows no HTML, so that tags are text like any other.
class TextTokenizer extends marked.Tokenizer {
  html() {}
  tag() {}
}

class PlainRenderer extends marked.Renderer {
  image(href, title, text) { return this.link(href, title, text || href || ''); }
  checkbox(checked) { return checked ? '☑ ' : '☐ '; }
}

const kMarked = {...marked.getDefaults(), gfm: true, breaks: true, headerIds: false, mangle: false,
                 tokenizer: new TextTokenizer(), renderer: new PlainRenderer()};
const kPurify = {
  ALLOWED_TAGS: ['a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li', 'ol',
                 'p', 'pre', 'span', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul'],
  ALLOWED_ATTR: ['align', 'class', 'href', 'start'], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook('afterSanitizeAttributes', (element) => {
  const classes = (element.getAttribute('class') || '').split(/\s+/);
  element.removeAttribute('class');
  const allowed = classes.filter((name) =>
    (element.tagName === 'CODE' && /^language-[\w+#.-]{1,40}$/.test(name)) ||
    (element.tagName === 'SPAN' && /^hljs-[\w-]{1,40}$/.test(name)));
  if (allowed.length) element.setAttribute('class', allowed.join(' '));
  if (element.tagName !== 'A') {
    element.removeAttribute('href');
    return;
  }
  let url = null;
  try {
    url = new URL(element.getAttribute('href') || '');
  } catch (error) {
    // No address of its own: a link within the page would leave the conversation.
  }
  if (url && ['http:', 'https:', 'mailto:'].includes(url.protocol)) {
    element.setAttribute('target', '_blank');
    element.setAttribute('rel', 'noopener noreferrer nofollow');
    element.setAttribute('title', url.href.slice(0, 300));
  } else {
    element.removeAttribute('href');
  }
});

const kMaxBlock = 32768;  // characters of a block that is no code; longer ones are shown as they are
const kPiece = 16384;
const kMaxHighlight = 20000;

/// marked's time grows with the square of some texts: those are shown as they are.
function isCostly(text) {
  if (/^[ \t]*(?:(?:>|[-*+]|\d{1,9}[.)])[ \t]*){24}/m.test(text)) return true;
  return text.split(/\n[ \t]*\n/).some((part) => part.length > 3000 && (part.match(/[*_[\]~`<!|]/g) || []).length > 800);
}

function plainBlock(text) {
  const block = document.createDocumentFragment();
  block.append(make('p', {class: 'plain', dir: 'auto', text}));
  return block;
}

function markdownFragment(tokens) {
  const fragment = DOMPurify.sanitize(marked.parser(tokens, kMarked), kPurify);
  for (const table of fragment.querySelectorAll('table')) {
    const frame = make('div', {class: 'table', tabindex: '0', role: 'region', label: 'Table'});
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function highlighted(code, language) {
  const known = language && hljs.getLanguage(language);
  if (!known || code.length > kMaxHighlight) return document.createTextNode(code);
  try {
    return DOMPurify.sanitize(hljs.highlight(language, code, true).value, kPurify);
  } catch (error) {
    return document.createTextNode(code);
  }
}

/// Colours code, and gives a block that is done a line with its language and a button.
function dressCode(root, done) {
  for (const code of root.querySelectorAll('pre > code')) {
    const language = (code.className.match(/language-(\S+)/) || ['', ''])[1].toLowerCase();
    const text = code.textContent;
    code.replaceChildren(highlighted(text, language));
    const pre = code.parentElement;
    pre.tabIndex = 0;
    const copy = iconButton('copy', 'Copy this code', () => copyText(text.replace(/\n$/, ''), copy), {testid: 'copy-code'});
    copy.hidden = !done;
    // Code that reads otherwise than it runs ("Trojan Source").
    const turned = /[\u202a-\u202e\u2066-\u2069]/.test(text) ? ' – holds marks that turn the direction of text' : '';
    const frame = make('div', {class: 'code'}, make('div', {class: 'code-bar'}, make('span', {text: (language || 'text') + turned}), copy));
    pre.replaceWith(frame);
    frame.append(pre);
  }
}

/// Shows a text that grows. Blocks that later text cannot change are rendered once; only the last two are done again.
class MarkdownView {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.tail = make('div', {class: 'tail'});
    this.element.replaceChildren(this.tail);
    this.from = 0;  // where the tail begins in the text
    this.end = 0;  // what was looked at
  }

  /// The whole text, which is complete.
  set(text) {
    this.clear();
    this.update(text, true);
  }

  /// The text so far. A streamed text that is short is rendered anew when it is done, so that what comes late (the
  /// address of a link) counts as well.
  update(text, done) {
    if (done && this.from > 0 && text.length <= kPiece) this.clear();
    // Much may have come at once, as in a tab that was not seen.
    while (this.end + kPiece < text.length) {
      this.end += kPiece;
      if (/[\ud800-\udbff]/.test(text[this.end - 1])) --this.end;
      this.advance(text.slice(0, this.end), false, false);
    }
    this.end = text.length;
    this.advance(text, done, true);
  }

  /// Renders what is settled, and the rest if it is to be seen now.
  advance(text, done, shown) {
    const rest = text.slice(this.from);
    const costly = isCostly(rest.slice(0, 2 * kMaxBlock)) || (rest.length > 2 * kMaxBlock && isCostly(rest.slice(-2 * kMaxBlock)));
    if (costly) return this.showPlain(rest, done);
    let tokens;
    try {
      // marked knows an open fence only where its last line is complete.
      tokens = marked.lexer(rest.endsWith('\n') ? rest : rest + '\n', kMarked);
    } catch (error) {
      return this.showPlain(rest, done);
    }
    const first = tokens.find((token) => token.type !== 'space');
    const blocks = tokens.filter((token) => token.type !== 'space').length;
    if (blocks < 3 && rest.length > kMaxBlock && first && first.type !== 'code') return this.showPlain(rest, done);
    const keep = done ? tokens.length : this.settled(tokens);
    const settled = tokens.slice(0, keep);
    settled.links = tokens.links;
    if (keep) {
      const fragment = this.render(settled, true);
      this.tail.before(fragment);
      this.from = Math.min(text.length, this.from + settled.reduce((n, token) => n + token.raw.length, 0));
    }
    if (!shown) return;
    const open = tokens.slice(keep);
    open.links = tokens.links;
    this.tail.replaceChildren(this.render(open, false));
  }

  /// How many tokens stand before the last two blocks.
  settled(tokens) {
    let blocks = 0;
    let at = tokens.length;
    while (at > 0 && blocks < 2) if (tokens[--at].type !== 'space') ++blocks;
    return blocks < 2 ? 0 : at;
  }

  render(tokens, done) {
    try {
      const fragment = markdownFragment(tokens);
      dressCode(fragment, done);
      // Of each block, since browsers look through all of an element for its direction whenever a child comes.
      for (const block of fragment.children) block.dir = block.matches('.code') ? 'ltr' : 'auto';
      return fragment;
    } catch (error) {
      // Nested too deeply for the stack; anything else is a bug of ours.
      if (!(error instanceof RangeError)) console.error(error);
      return plainBlock(tokens.map((token) => token.raw).join(''));
    }
  }

  showPlain(rest, done) {
    // Whole lines, where there are any.
    const end = done ? rest.length : rest.length > kMaxBlock ? rest.lastIndexOf('\n') + 1 || rest.length : 0;
    if (end) this.tail.before(plainBlock(rest.slice(0, end)));
    this.from += end;
    this.tail.replaceChildren(...(end < rest.length ? [plainBlock(rest.slice(end))] : []));
  }
}
