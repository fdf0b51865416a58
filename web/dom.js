// Helpers over the DOM. Text from outside enters as text, never as markup.

const $ = (id) => document.getElementById(id);

/// make('button', {class: 'icon', text: 'Copy', on: {click: f}, testid: 'copy', label: 'Copy'}, child…)
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name === 'on') for (const [event, f] of Object.entries(value)) element.addEventListener(event, f);
    else if (name === 'testid') element.dataset.testid = value;
    else if (name === 'label') element.setAttribute('aria-label', value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return svg;
}

function iconButton(name, label, click, properties = {}) {
  return make('button', {type: 'button', class: 'icon', label, title: label, on: {click}, ...properties}, icon(name));
}

const isNumber = (x) => typeof x === 'number' && Number.isFinite(x);
const isObject = (x) => typeof x === 'object' && x !== null && !Array.isArray(x);
const count = (n) => Math.round(n).toLocaleString('en');
const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;
const speed = (perSecond) => perSecond >= 100 ? count(perSecond) : perSecond.toFixed(1);
const milliseconds = (ms) =>
  ms < 1 ? `${ms.toFixed(2)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;

let bannerAction = null;

/// A line at the top: what went wrong, and perhaps what to do about it.
function showBanner(text, action = null, label = 'Try again') {
  $('banner-text').textContent = text;
  $('banner-action').textContent = label;
  $('banner-action').hidden = !action;
  $('banner').hidden = false;
  bannerAction = action;
}

function hideBanner() {
  $('banner').hidden = true;
  bannerAction = null;
}

/// Copies text and says so on the button. Pages that come over plain HTTP from elsewhere have no clipboard API.
async function copyText(text, button) {
  let copied = false;
  try {
    await navigator.clipboard.writeText(text);
    copied = true;
  } catch (error) {
    const area = make('textarea', {class: 'offscreen', readonly: true, 'aria-hidden': 'true'});
    area.value = text;
    document.body.append(area);
    area.select();
    copied = document.execCommand('copy');
    area.remove();
    button.focus();
  }
  const label = button.getAttribute('aria-label');
  if (button.dataset.said) return;  // by a click before this one
  const drawn = button.querySelector('use');
  const said = copied ? 'Copied' : 'The browser did not allow copying';
  button.dataset.said = said;
  button.classList.toggle('done', copied);
  button.setAttribute('aria-label', said);
  drawn.setAttribute('href', copied ? '#i-check' : '#i-close');
  setTimeout(() => {
    delete button.dataset.said;
    button.classList.remove('done');
    button.setAttribute('aria-label', label);
    drawn.setAttribute('href', '#i-copy');
  }, 1500);
}

/// Asks in a dialog. Resolves to null (cancelled), true, or, with `value`, the text entered.
function ask(title, text, yes, value) {
  const dialog = $('ask-dialog');
  $('ask-title').textContent = title;
  $('ask-text').textContent = text;
  $('ask-yes').textContent = yes;
  $('ask-yes').classList.toggle('danger', value === undefined);
  $('ask-field').hidden = value === undefined;
  $('ask-input').value = value === undefined ? '' : value;
  dialog.returnValue = '';
  dialog.showModal();
  if (value !== undefined) $('ask-input').select();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const agreed = dialog.returnValue === 'yes';
      resolve(!agreed ? null : value === undefined ? true : $('ask-input').value.trim());
    }, {once: true});
  });
}

function readLocal(key) {
  try {
    return localStorage.getItem(`kvasir.${key}`);
  } catch (error) {
    return null;
  }
}

/// False where the browser keeps nothing.
function writeLocal(key, value) {
  try {
    if (value === null) localStorage.removeItem(`kvasir.${key}`);
    else localStorage.setItem(`kvasir.${key}`, value);
    return true;
  } catch (error) {
    return false;
  }
}

function readSession(key) {
  try {
    return sessionStorage.getItem(`kvasir.${key}`);
  } catch (error) {
    return null;
  }
}

function writeSession(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(`kvasir.${key}`);
    else sessionStorage.setItem(`kvasir.${key}`, value);
    return true;
  } catch (error) {
    return false;
  }
}
