// The panels and tables of pages. DATA holds everything that a page shows.
const DATA = JSON.parse(document.getElementById('data').textContent);

const capital = text => text.charAt(0).toUpperCase() + text.slice(1);

function panel(title, ...children) {
  return el('section', {class: 'panel'}, el('h2', {}, title), ...children);
}

// `name`: of a table that may be wider or higher than its place; it can be scrolled, with the keyboard too.
function table(head, rows, name) {
  const body = el('tbody');
  for (const row of rows) body.append(el('tr', {}, ...row.map(cell => cell instanceof Node ? cell : el('td', {title: String(cell)}, String(cell)))));
  const out = el('table', {}, el('thead', {}, el('tr', {}, ...head.map(h => el(h ? 'th' : 'td', h ? {scope: 'col'} : {}, h)))), body);
  return name ? el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': name}, out) : out;
}

// What the words of a page mean, as a list that opens: rows [word, meaning].
function words(rows) {
  const list = el('dl', {class: 'words'});
  for (const [word, meaning] of rows) list.append(el('dt', {}, word), el('dd', {}, meaning));
  return el('details', {class: 'wide'}, el('summary', {}, 'The words of this page'), list);
}

// Draws the page, and again where it has become narrow or wide (a turned phone): figures are drawn for a width.
function drawPage(draw) {
  draw();
  matchMedia('(max-width: 700px)').addEventListener('change', () => { hideTip(); draw(); });
}

const range = pair => pair ? `${format(pair[0])} – ${format(pair[1])}` : '–';
const percent = v => `${v >= 0 ? '+' : ''}${(100 * v).toFixed(2)}%`;

function key(text, draw) {
  const svg = svgEl('svg', {viewBox: '0 0 22 12', 'aria-hidden': 'true'});
  for (const [name, {stroke = 'none', fill = 'none', ...rest}] of draw) svg.append(svgEl(name, {...rest, stroke: tone(stroke), fill: tone(fill)}));
  return el('span', {}, svg, text);
}

const TIME_COLORS = {'steps': '#31688f', 'starting': '#b8c4d6', 'compiling': '#7e6aa8', 'waiting for data': '#d9a441',
  'evaluating': '#5aa27c', 'saving': '#8fc1d4', 'lost to restarts': '#b5331e'};

function duration(seconds) {
  if (seconds >= 59.5) seconds = Math.round(seconds);
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return seconds < 48 * 3600 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

// How the runs spent their time, as a bar with a legend; parts are [{what, seconds, share}] from goodput.shares.
function timePanel(parts, note = '') {
  if (!parts.length) return '';
  const bar = el('div', {class: 'time'}), shown = parts.filter(p => p.seconds > 0);
  for (const p of shown) bar.append(el('span', {style: `width:${100 * p.share}%;background:${tone(TIME_COLORS[p.what])}`, title: `${p.what}: ${duration(p.seconds)}`}));
  const legend = el('div', {class: 'legend'});
  for (const p of [...shown].sort((a, b) => b.seconds - a.seconds))
    legend.append(key(`${p.what} ${(100 * p.share).toFixed(p.share < 0.1 ? 1 : 0)}% (${duration(p.seconds)})`, [['rect', {x: 1, y: 1, width: 20, height: 10, fill: TIME_COLORS[p.what]}]]));
  const total = parts.reduce((sum, p) => sum + p.seconds, 0);
  return panel(`Time: ${duration(total)}`, bar, legend, note && el('p', {class: 'note'}, note));
}
