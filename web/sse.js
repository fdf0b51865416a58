// Server-sent events over fetch (EventSource sends no headers). WHATWG HTML, "Interpreting an event stream".

const kMaxEvent = 8 << 20;  // characters of one event

/// Takes text in pieces that may end anywhere and calls onEvent({event, data}) for each event that is complete.
class SseParser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.line = '';
    this.afterReturn = false;  // the last piece ended in CR: a LF that follows belongs to it
    this.first = true;
    this.reset();
  }

  reset() {
    this.data = [];
    this.size = 0;
    this.event = '';
  }

  push(text) {
    if (text === '') return;
    if (this.first && text.startsWith('\ufeff')) text = text.slice(1);
    this.first = false;
    let from = 0;
    if (this.afterReturn && text[0] === '\n') from = 1;
    this.afterReturn = false;
    for (let i = from; i < text.length; ++i) {
      const c = text[i];
      if (c !== '\n' && c !== '\r') continue;
      this.takeLine(this.line + text.slice(from, i));
      this.line = '';
      if (c === '\r') {
        if (i + 1 === text.length) this.afterReturn = true;
        else if (text[i + 1] === '\n') ++i;
      }
      from = i + 1;
    }
    this.line += text.slice(from);
    if (this.line.length > kMaxEvent) throw new ApiError('broken', 'The server sent an event of more than 8 MiB.');
  }

  takeLine(line) {
    if (line === '') {
      if (this.data.length) this.onEvent({event: this.event || 'message', data: this.data.join('\n')});
      this.reset();
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return;  // a comment, as servers send to keep a connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'event') this.event = value;
    if (field !== 'data') return;
    this.data.push(value);
    this.size += value.length + 1;
    if (this.size > kMaxEvent) throw new ApiError('broken', 'The server sent an event of more than 8 MiB.');
  }
}

/// Reads a response's events until it ends or onEvent returns false. An event cut off by the end is dropped, as the
/// specification has it.
async function readEvents(response, onEvent) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let go = true;
  const parser = new SseParser((event) => {
    if (go && onEvent(event) === false) go = false;
  });
  try {
    while (go) {
      const {done, value} = await reader.read();
      if (done) return;
      parser.push(decoder.decode(value, {stream: true}));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
