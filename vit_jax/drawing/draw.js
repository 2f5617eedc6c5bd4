'use strict';
// A small plotting library: a frame with axes, and marks in data coordinates. Text is always set as textContent.
const SVG = 'http://www.w3.org/2000/svg';

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svgEl(name, attributes = {}, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// The one format of measured numbers: 0.3181, 1325, 7.66e4, 1e10. What is counted is exact: count(88597) is 88,597.
function format(value) {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e4 || size < 1e-3)) return value.toExponential(2).replace(/\.?0*e\+?/, 'e');
  return String(Number(value.toPrecision(4)));
}

const count = value => Number.isInteger(value) && Math.abs(value) < 1e15 ? value.toLocaleString('en') : format(value);

// A color of the data, lighter where the page is dark: the darkest of them would vanish on it.
const tone = color => color.startsWith('#') ? `color-mix(in oklab, ${color}, #fff var(--lift))` : color;

function linearTicks(low, high, count, whole = false) {
  const raw = (high - low) / count, unit = 10 ** Math.floor(Math.log10(raw));
  const fine = unit * [1, 2, 2.5, 5, 10].find(m => m * unit >= raw), step = whole ? Math.max(1, Math.ceil(fine)) : fine;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(i * step);
  return out.map(v => Number(v.toPrecision(6))).map(v => [v, Math.abs(v) < 1e4 && Math.abs(v) >= 1e-3 || !v ? String(v) : format(v)]);
}

function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first >= 1) {
    const step = Math.ceil((last - first) / count), out = [];
    for (let p = first; p <= last; p += step) out.push([10 ** p, format(10 ** p)]);
    if (out.length >= 3) return out;
  }
  if (high / low < 3) return linearTicks(low, high, count).filter(t => t[0] > 0);
  const out = [];
  for (let p = first - 1; p <= last; p++) for (const m of high / low < 8 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 2, 5]) {
    const v = m * 10 ** p;
    if (v >= low && v <= high) out.push([v, format(v)]);
  }
  return out;
}

class Plot {
  // options: {x: {log, label, domain, whole}, y: the same, width, height}; whole: ticks at whole numbers only. On a phone
  // a figure is drawn for the width that is there, because labels that shrink with it cannot be read.
  constructor(options) {
    this.options = options;
    this.width = Math.min(options.width || 440, Math.max(300, innerWidth - 26));
    this.height = Math.min(options.height || 290, Math.max(260, this.width * 0.9));
    this.box = {left: 62, right: this.width - 14, top: 10, bottom: this.height - 42};
    this.svg = svgEl('svg', {viewBox: `0 0 ${this.width} ${this.height}`, role: 'img', 'aria-label': `${options.y.label} over ${options.x.label}`});
    const id = 'clip' + Plot.count++;
    const clip = svgEl('clipPath', {id});
    clip.append(svgEl('rect', {x: this.box.left, y: this.box.top, width: this.box.right - this.box.left, height: this.box.bottom - this.box.top}));
    this.back = svgEl('g'); this.marks = svgEl('g', {'clip-path': `url(#${id})`}); this.front = svgEl('g');
    this.svg.append(clip, this.back, this.marks, this.front);
    this.axes();
  }
  place(axis, value, low, high) {
    const {log, domain} = axis, t = log ? Math.log : v => v;
    if (log && !(value > 0)) return low + (high > low ? -1e4 : 1e4);
    return low + (t(value) - t(domain[0])) / (t(domain[1]) - t(domain[0])) * (high - low);
  }
  X(value) { return this.place(this.options.x, value, this.box.left, this.box.right); }
  Y(value) { return this.place(this.options.y, value, this.box.bottom, this.box.top); }
  axes() {
    const {left, right, top, bottom} = this.box, {x, y} = this.options;
    const ticks = (axis, count) => (axis.log ? logTicks : linearTicks)(...axis.domain, count, axis.whole);
    for (const [value, text] of ticks(x, 6)) {
      const at = this.X(value);
      this.back.append(svgEl('line', {x1: at, x2: at, y1: top, y2: bottom, stroke: 'var(--grid)'}));
      this.front.append(svgEl('text', {x: at, y: bottom + 16, 'text-anchor': 'middle'}, text));
    }
    for (const [value, text] of ticks(y, 6)) {
      const at = this.Y(value);
      this.back.append(svgEl('line', {x1: left, x2: right, y1: at, y2: at, stroke: 'var(--grid)'}));
      this.front.append(svgEl('text', {x: left - 7, y: at + 4, 'text-anchor': 'end'}, text));
    }
    this.front.append(svgEl('line', {x1: left, x2: right, y1: bottom, y2: bottom, stroke: 'var(--axis)'}),
      svgEl('line', {x1: left, x2: left, y1: top, y2: bottom, stroke: 'var(--axis)'}),
      svgEl('text', {x: (left + right) / 2, y: bottom + 35, 'text-anchor': 'middle', class: 'axis'}, x.label),
      svgEl('text', {x: 0, y: 0, 'text-anchor': 'middle', class: 'axis', transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`}, y.label));
  }
  path(xs, ys) {
    let out = '', pen = 'M';
    xs.forEach((x, i) => {
      if (ys[i] === null || (this.options.y.log && !(ys[i] > 0))) { pen = 'M'; return; }
      out += `${pen}${this.X(x).toFixed(2)} ${this.Y(ys[i]).toFixed(2)}`; pen = 'L';
    });
    return out;
  }
  line(xs, ys, color, extra = {}) {
    this.marks.append(svgEl('path', {d: this.path(xs, ys), fill: 'none', stroke: tone(color), 'stroke-width': 1.6, ...extra}));
  }
  band(xs, low, high, color, opacity) {
    const floor = this.options.y.log ? this.options.y.domain[0] / 100 : -Infinity;
    const fix = ys => ys.map(v => this.options.y.log ? Math.max(v, floor) : v);
    const d = this.path(xs, fix(high)) + this.path([...xs].reverse(), fix([...low].reverse())).replace('M', 'L') + 'Z';
    this.marks.append(svgEl('path', {d, fill: tone(color), 'fill-opacity': opacity, stroke: 'none'}));
  }
  shade(from, to, text) {
    const a = Math.max(this.X(from), this.box.left), b = Math.min(this.X(to), this.box.right);
    if (b <= a) return;
    this.back.prepend(svgEl('rect', {x: a, y: this.box.top, width: b - a, height: this.box.bottom - this.box.top, fill: 'var(--shade)'}));
    if (b - a > 60) this.front.append(svgEl('text', {x: a + 5, y: this.box.top + 13}, text));
  }
  level(value, extra = {}) {
    this.marks.append(svgEl('line', {x1: this.box.left, x2: this.box.right, y1: this.Y(value), y2: this.Y(value), stroke: 'var(--faint)', ...extra}));
  }
  dot(x, y, color, state, tip, radius = 4, opacity = 1) {
    const fill = state === 'held' ? 'var(--paper)' : state === 'below' ? 'var(--muted)' : tone(color);
    const node = svgEl('circle', {cx: this.X(x), cy: this.Y(y), r: radius, fill, stroke: state === 'below' ? 'var(--faint)' : tone(color), 'stroke-width': 1.6, opacity});
    this.marks.append(node);
    if (tip) tipped(node, tip);
  }
}
Plot.count = 0;

function domain(values, log, pad = 0.06) {
  const good = values.filter(v => v !== null && isFinite(v) && (!log || v > 0));
  if (!good.length) return log ? [0.1, 10] : [0, 1];
  let [low, high] = [Math.min(...good), Math.max(...good)];
  if (log) {
    const grow = Math.max(high / low, 1.02) ** pad;
    return [low / grow, high * grow];
  }
  const grow = (high - low || Math.abs(high) || 1) * pad;
  return [low - grow, high + grow];
}

// Shows a tip for a mark: under the pointer, after a tap, or with the keyboard. Tab reaches the first mark of a figure,
// and the arrows the others. `node` must be in its figure, which is `group`.
function tipped(node, tip, group = node.parentNode) {
  const first = !group.querySelector('[tabindex="0"]'), [title] = tip();
  for (const [name, value] of [['tabindex', first ? 0 : -1], ['role', 'img'], ['aria-label', [title, ...tip()[1].map(row => row.join(' '))].join(', ')]]) node.setAttribute(name, value);
  node.classList.add('hover');
  const show = event => { node.classList.add('on'); showTip(event, tip()); };
  const hide = () => { node.classList.remove('on'); hideTip(); };
  node.addEventListener('pointerenter', show);
  node.addEventListener('pointermove', moveTip);
  node.addEventListener('pointerleave', event => { if (event.pointerType !== 'touch') hide(); });  // a tap's tip stays
  node.addEventListener('focus', () => {
    const {left, top, width, height} = node.getBoundingClientRect();
    show({clientX: left + width / 2, clientY: top + height / 2});
  });
  node.addEventListener('blur', hide);
  node.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.key === 'Escape') hide();
    if (!step) return;
    const marks = [...group.querySelectorAll('.hover')], next = marks[marks.indexOf(node) + step];
    if (next) next.focus();
    event.preventDefault();
  });
}
document.addEventListener('pointerdown', event => {
  if (event.target instanceof Element && event.target.classList.contains('hover')) return;
  hideTip();
  const figure = event.pointerType === 'touch' && event.target instanceof Element && event.target.closest('svg');
  if (figure) tapped(figure, event.clientX, event.clientY);
});

// A finger covers more than a mark: a tap means the nearest one within its reach.
function tapped(figure, x, y) {
  const far = mark => { const r = mark.getBoundingClientRect(); return Math.hypot(r.left + r.width / 2 - x, r.top + r.height / 2 - y); };
  const near = [...figure.querySelectorAll('.hover')].map(mark => [far(mark), mark]).filter(([d]) => d < 24).sort((a, b) => a[0] - b[0]);
  if (near.length) requestAnimationFrame(() => near[0][1].focus());  // after the browser has moved the focus to what was touched
}

const tipNode = document.getElementById('tip');
function showTip(event, [title, rows]) {
  const list = el('dl');
  for (const [key, value] of rows) list.append(el('dt', {}, key), el('dd', {}, value));
  tipNode.replaceChildren(el('b', {}, title), list);
  tipNode.hidden = false;
  moveTip(event);
}
function moveTip(event) {
  const {offsetWidth: w, offsetHeight: h} = tipNode;
  tipNode.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 8)) + 'px';
  tipNode.style.top = (event.clientY + 16 + h > innerHeight ? Math.max(4, event.clientY - h - 10) : event.clientY + 16) + 'px';
}
function hideTip() { tipNode.hidden = true; }
