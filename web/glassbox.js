// The panel beside the conversation: figures of an answer, and the engine's steps as they happen.

const kSteps = 100;  // shown in the charts
const kMaxMap = 4096;

/// An event of /glassbox with every field checked; null where it is none.
function readStep(data) {
  let event;
  try {
    event = JSON.parse(data);
  } catch (error) {
    return null;
  }
  if (!isObject(event)) return null;
  const number = (x) => isNumber(x) && x >= 0 ? x : 0;
  const step = {step: number(event.step), ms: number(event.step_ms), running: number(event.running), sequences: 0,
                waiting: number(event.waiting), preempted: number(event.preempted),
                speed: number(event.tokens_per_second), prompt: 0, answers: 0, blocks: null};
  for (const part of Array.isArray(event.batch) ? event.batch.slice(0, 10000) : []) {
    if (!isObject(part)) continue;
    ++step.sequences;
    step[part.kind === 'prompt' ? 'prompt' : 'answers'] += number(part.tokens);
  }
  const blocks = event.blocks;
  if (isObject(blocks) && typeof blocks.map === 'string') {
    step.blocks = {total: number(blocks.total), tokens: number(blocks.block_tokens), used: number(blocks.used),
                   cached: number(blocks.cached), free: number(blocks.free), per: Math.max(1, number(blocks.per_char)),
                   map: blocks.map.slice(0, kMaxMap)};
  }
  return step;
}

class GlassBox {
  constructor() {
    this.steps = [];
    this.controller = null;
    this.wait = 500;  // ms before the next try
    this.timer = 0;
    this.frame = 0;
    this.described = 0;
    this.grid = null;
    this.pointed = null;
    this.quiet = 0;  // timer
    document.addEventListener('visibilitychange', () => this.follow());
    this.explain(readLocal('explain') === 'yes');
    $('explain').addEventListener('click', () => this.explain($('explain').getAttribute('aria-pressed') !== 'true'));
    new ResizeObserver(() => this.draw()).observe($('glassbox'));
    $('kv-map').addEventListener('pointermove', (event) => this.pointAt(event));
    $('kv-map').addEventListener('pointerleave', () => { this.pointed = null; this.draw(); });
  }

  /// Shows or hides what the figures mean.
  explain(shown) {
    $('explain').setAttribute('aria-pressed', String(shown));
    $('glassbox').classList.toggle('explained', shown);
    writeLocal('explain', shown ? 'yes' : null);
  }

  get open() { return !$('app').classList.contains('no-box') && getComputedStyle($('glassbox')).visibility !== 'hidden'; }

  /// Connects or hangs up, as the panel and the tab are seen.
  follow() {
    const wanted = this.open && !document.hidden;
    if (wanted && !this.controller) {
      clearTimeout(this.timer);
      this.listen();
    } else if (!wanted && this.controller) {
      this.controller.abort();
    }
    if (!wanted) clearTimeout(this.timer);
  }

  /// At once, as when there is a new key.
  again() {
    this.wait = 500;
    this.follow();
  }

  async listen() {
    const controller = this.controller = new AbortController();
    this.say('connecting');
    let retry = true;
    try {
      const response = await call('glassbox', {signal: controller.signal, headers: {Accept: 'text/event-stream'}});
      this.say('live');
      await readEvents(response, ({data}) => {
        this.wait = 500;
        this.take(readStep(data));
      });
      this.say('reconnecting');
    } catch (error) {
      const kind = error instanceof ApiError ? error.kind : '';
      retry = kind !== 'key' && error.status !== 404;
      this.say(controller.signal.aborted ? 'paused' : kind === 'key' ? 'needs a key' : error.status === 404 ? 'not offered' : 'reconnecting');
    }
    this.controller = null;
    if (!retry || controller.signal.aborted) {
      if (controller.signal.aborted) this.follow();
      return;
    }
    this.timer = setTimeout(() => this.follow(), this.wait);
    this.wait = Math.min(this.wait * 2, 15000);
  }

  say(text, connected = text === 'live') {
    if ($('live').textContent !== text) $('live').textContent = text;
    $('live').classList.toggle('on', connected);
  }

  take(step) {
    if (!step) return;
    this.say('live');
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => { if (this.controller) this.say('idle', true); }, 3000);
    this.steps.push(step);
    if (this.steps.length > kSteps) this.steps.shift();
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  draw() {
    if (!this.open) return;
    const last = this.steps[this.steps.length - 1];
    drawSpeed($('speed-chart'), this.steps.map((s) => s.speed), kSteps);
    drawBatches($('batch-chart'), this.steps, kSteps);
    if (!last) return;
    for (const name of ['running', 'waiting', 'preempted']) $(`stat-${name}`).textContent = count(last[name]);
    const {blocks} = last;
    if (blocks) {
      this.grid = drawBlocks($('kv-map'), blocks.map);
      const shared = sharedBlocks(blocks);
      for (const [name, n] of [['used', blocks.used - shared], ['shared', shared], ['cached', blocks.cached], ['free', blocks.free]]) {
        $(`kv-${name}`).textContent = count(Math.max(0, n));
      }
    }
    $('speed-text').textContent = `${speed(last.speed)} tokens/s; step ${count(last.step)} took ${milliseconds(last.ms)}`;
    $('batch-text').textContent = `${plural(last.sequences, 'sequence')}: ${count(last.prompt)} prompt + ${count(last.answers)} answer tokens`;
    $('kv-text').textContent = !blocks ? 'This cache has no blocks to show.' : this.pointed ? this.pointed : poolLine(blocks);
    // What a screen reader finds; not at every step, since some read changes out.
    if (performance.now() - this.described > 2000) {
      this.described = performance.now();
      $('speed-chart').setAttribute('aria-label', `Tokens per second, now ${speed(last.speed)}`);
      $('batch-chart').setAttribute('aria-label', `Tokens of each step; the last: ${$('batch-text').textContent}`);
      if (blocks) $('kv-map').setAttribute('aria-label', `Blocks of the KV cache: ${blocksLine(blocks)}`);
    }
  }

  pointAt(event) {
    const last = this.steps[this.steps.length - 1];
    if (!this.grid || !last || !last.blocks) return;
    const {map, per} = last.blocks;
    const column = Math.floor(event.offsetX / this.grid.pitch);
    const i = Math.floor(event.offsetY / this.grid.pitch) * this.grid.columns + column;
    const names = {'.': 'free', u: 'held by one sequence', s: 'shared by several', c: 'kept for later'};
    const inside = column < this.grid.columns && i < map.length;
    const which = per === 1 ? `Block ${count(i)}` : `Blocks ${count(i * per)} to ${count((i + 1) * per - 1)}`;
    this.pointed = inside ? `${which}: ${names[map[i]] || 'unknown'}` : null;
    this.draw();
  }

  /// The time that an answer's first token has taken so far.
  showWait(ms) { $('stat-ttft').textContent = `${milliseconds(ms)} …`; }

  /// The figures of one answer; of none, with null.
  showAnswer(stats) {
    const text = (id, value, form) => { $(id).textContent = isNumber(value) ? form(value) : '–'; };
    const {ttft, tps, prompt, cached, pieces} = stats || {};
    const answer = stats && (isNumber(stats.answer) ? stats.answer : pieces);
    text('stat-ttft', ttft, milliseconds);
    text('stat-tps', tps, (x) => `${speed(x)}/s`);
    text('stat-prompt', prompt, count);
    text('stat-cached', cached, count);
    // Until the server has counted, and for answers that were stopped: chunks, nearly always one for each token.
    text('stat-answer', answer, stats && isNumber(stats.answer) ? count : (n) => `≈ ${count(n)}`);
    const parts = {cached: Math.min(cached || 0, prompt || 0), computed: Math.max(0, (prompt || 0) - (cached || 0)), written: answer || 0};
    for (const [name, tokens] of Object.entries(parts)) {
      const part = $('split').querySelector(`.${name}`);
      part.hidden = tokens === 0;
      part.style.flexGrow = String(tokens);
    }
    $('split').setAttribute('aria-label', isNumber(prompt)
      ? `${count(parts.cached)} tokens from the cache, ${count(parts.computed)} computed, ${count(parts.written)} written` : 'No answer yet');
  }
}

/// How many blocks several sequences hold; near it where a letter stands for more than one.
const sharedBlocks = (blocks) => Math.min(blocks.used, [...blocks.map].filter((c) => c === 's').length * blocks.per);

const poolLine = (blocks) => `${plural(blocks.total, 'block')} of ${plural(blocks.tokens, 'token')} each` +
  (blocks.per > 1 ? `; a square is ${count(blocks.per)} blocks` : '');

/// The same as the map and its legend, in words.
const blocksLine = (blocks) => `${count(blocks.used)} of ${plural(blocks.total, 'block')} held, ${count(sharedBlocks(blocks))} of them shared; ` +
  `${count(blocks.cached)} kept, ${count(blocks.free)} free`;
