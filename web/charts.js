// Drawing on canvases, in the theme's colours.

const themeColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/// Sizes a canvas to its place on the page, in device pixels, and gives a context that counts in CSS pixels.
function surface(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

/// A round number, at least x.
function roundUp(x) {
  const power = 10 ** Math.floor(Math.log10(Math.max(x, 1)));
  return power * [1, 1.5, 2, 3, 4, 6, 8, 10].find((m) => m * power >= x);
}

function drawScale(context, width, height) {
  context.strokeStyle = themeColour('rule');
  context.lineWidth = 1;
  context.beginPath();
  for (const y of [0.5, Math.round(height / 2) + 0.5, height - 0.5]) {
    context.moveTo(0, y);
    context.lineTo(width, y);
  }
  context.stroke();
}

function drawTop(context, top) {
  context.font = '10px system-ui, sans-serif';
  context.textBaseline = 'top';
  const text = count(top);
  context.fillStyle = themeColour('side');
  context.fillRect(0, 1, context.measureText(text).width + 5, 13);
  context.fillStyle = themeColour('dim');
  context.fillText(text, 1, 3);
}

function drawSpeed(canvas, values, most) {
  const {context, width, height} = surface(canvas);
  const top = roundUp(Math.max(...values, 1));
  drawScale(context, width, height);
  if (values.length < 2) return;
  const x = (i) => width - (values.length - 1 - i) * width / (most - 1);
  const y = (v) => height - 1 - v / top * (height - 4);
  context.beginPath();
  values.forEach((value, i) => context.lineTo(x(i), y(value)));
  context.strokeStyle = themeColour('written');
  context.lineWidth = 1.5;
  context.lineJoin = 'round';
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(x(0), height);
  context.globalAlpha = 0.12;
  context.fillStyle = themeColour('written');
  context.fill();
  context.globalAlpha = 1;
  drawTop(context, top);
}

/// steps: {prompt, answers}, tokens of one step, the last one at the right. The least part of a step is three pixels.
function drawBatches(canvas, steps, most) {
  const {context, width, height} = surface(canvas);
  const top = roundUp(Math.max(...steps.map((s) => s.prompt + s.answers), 1));
  drawScale(context, width, height);
  const pitch = width / most;
  const bar = Math.max(1, pitch - 1);
  const tall = (tokens) => tokens ? Math.max(3, tokens / top * (height - 4)) : 0;
  const colours = {prompt: themeColour('computed'), answers: themeColour('written')};
  steps.forEach((step, i) => {
    const x = width - (steps.length - i) * pitch;
    let y = height - 1;
    for (const part of ['answers', 'prompt']) {
      const h = tall(step[part]);
      context.fillStyle = colours[part];
      context.fillRect(x, y - h, bar, h);
      y -= h;
    }
  });
  if (steps.length) drawTop(context, top);
}

/// The largest squares with which all of the map fits.
function mapGrid(cells, width, height) {
  for (let pitch = 14; pitch > 1; --pitch) {
    const columns = Math.floor(width / pitch);
    if (columns * Math.floor(height / pitch) >= cells) return {pitch, columns};
  }
  return {pitch: 1, columns: Math.max(1, Math.floor(width))};
}

const kBlockColours = {'.': 'free', u: 'used', s: 'shared', c: 'cached'};

function drawBlocks(canvas, map) {
  const {context, width, height} = surface(canvas);
  const {pitch, columns} = mapGrid(map.length, width, height);
  const gap = pitch >= 4 ? 1 : 0;
  for (const [letter, colour] of Object.entries(kBlockColours)) {
    context.fillStyle = themeColour(colour);
    for (let i = 0; i < map.length; ++i) {
      if (map[i] !== letter) continue;
      context.fillRect(i % columns * pitch, Math.floor(i / columns) * pitch, pitch - gap, pitch - gap);
    }
  }
  return {pitch, columns};
}
