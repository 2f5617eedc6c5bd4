// Parts of the pages of one run, with classes or without: curves, facts, events, pictures.
const S = DATA.summary, SEVERAL = Boolean(S.several_labels), BLUE = '#31688e', RED = '#b5331e', SOFT = '#b0b4bb';
const share = (value, digits = 1) => value === null ? '–' : `${(100 * value).toFixed(digits)}%`;

function words_of(score) { return score === 'f1' ? 'F1' : score; }

function curve(name, log) {
  const {train, val} = DATA.curves, steps = [...train.step, ...val.step];
  if (!steps.length) return '';
  const values = [...train[name], ...val[name]];
  const plot = new Plot({width: 470, height: 300, x: {log: false, whole: true, label: 'step', domain: [0, Math.max(...steps) * 1.02]},
    y: {log: log && Math.min(...values) > 0, label: words_of(name), domain: domain(values, log && Math.min(...values) > 0)}});
  plot.line(train.step, train[name], SOFT, {'stroke-width': 1.4});
  plot.line(val.step, val[name], BLUE, {'stroke-width': 2});
  val.step.forEach((step, i) => plot.dot(step, val[name][i], BLUE, 'fitted', () => [`step ${count(step)}`, [['val loss', format(val.loss[i])], [`val ${words_of(DATA.score)}`, share(val[DATA.score][i], 2)]]], 3));
  return plot.svg;
}

function curves() {
  if (!DATA.curves.train.step.length && !DATA.curves.val.step.length) return '';
  const line = color => [['line', {x1: 0, x2: 22, y1: 6, y2: 6, stroke: color, 'stroke-width': 2}]];
  return panel('Learning curves', el('div', {class: 'pair'}, curve('loss', true), curve(DATA.score, false)),
    el('div', {class: 'legend'}, key('training', line(SOFT)), key('validation', line(BLUE))),
    DATA.curves_note && el('p', {class: 'note'}, DATA.curves_note));
}

function facts() {
  const list = el('dl', {class: 'facts'});
  for (const [name, value] of DATA.facts) list.append(el('dt', {}, name), el('dd', {}, value));
  return panel('The run', list);
}

function events() {
  if (!DATA.events.length && !S.unreadable.length) return '';
  const list = el('ul', {class: 'warnings'});
  for (const words of DATA.events) list.append(el('li', {}, words));
  if (S.unreadable.length) list.append(el('li', {}, `${count(S.unreadable.length)} pictures could not be read and are not counted: ${S.unreadable[0]}`));
  return panel('On record', list);
}

function image(source, words) {
  const out = el('img', {src: source, alt: words});
  if (!source.startsWith('data:image/png')) out.classList.add('smooth');
  return out;
}

function config() {
  if (!DATA.config) return '';
  return el('details', {}, el('summary', {}, 'The whole config'), el('pre', {tabindex: 0, role: 'region', 'aria-label': 'config'}, DATA.config));
}

// A column of what there is; none where nothing is there, so that the others take its room.
function column(...parts) {
  const there = parts.filter(part => part instanceof Node);
  return there.length ? el('div', {}, ...there) : '';
}

function cut(text, most) { return text.length > most ? text.slice(0, most - 1) + '…' : text; }
