// The page of many runs: curves, the law so far, and a table. A live one reloads itself, unless someone is using it.
const NO_VALUE = '–', value = v => v === null ? NO_VALUE : format(v);

function curves() {
  const drawn = DATA.runs.filter(run => run.x.length > 1), xs = drawn.flatMap(run => run.x).filter(x => x > 0), ys = drawn.flatMap(run => run.y);
  if (!drawn.length) return panel('Learning curves', el('p', {class: 'note'}, 'No run has two values of its loss yet.'));
  const plot = new Plot({width: 600, height: 400, x: {log: true, label: 'examples seen', domain: domain(xs, true, 0.02)},
    y: {log: Math.min(...ys) > 0, label: 'loss', domain: domain(ys, Math.min(...ys) > 0, 0.04)}});
  for (const run of drawn) plot.line(run.x, run.y, run.color, {'stroke-width': 1.2, 'stroke-opacity': 0.8, ...(run.split === 'train' ? {'stroke-dasharray': '5 3'} : {})});
  for (const run of drawn) plot.dot(run.x.at(-1), run.y.at(-1), run.color, run.status === 'finished' ? 'fitted' : 'held', () => tip(run), 3.4);
  const legend = el('div', {class: 'legend'}), groups = DATA.laws.filter(law => law.name);
  for (const group of groups) legend.append(key(group.name, [['line', {x1: 0, x2: 22, y1: 6, y2: 6, stroke: group.color, 'stroke-width': 2}]]));
  const circle = fill => [['circle', {cx: 11, cy: 6, r: 4, fill, stroke: 'var(--soft)', 'stroke-width': 1.6}]];
  legend.append(key('finished', circle('var(--soft)')), key('not finished', circle('var(--paper)')));
  return panel('Learning curves', plot.svg, legend, el('p', {class: 'note'}, `Loss on validation; dashed: of training, where validation has not been scored twice. ${groups.length ? '' : 'Colours go from the smallest model to the largest. '}At most ${DATA.most} places of a curve are drawn.`));
}

function tip(run) {
  return [run.name, [['status', run.status], ['step', `${count(run.step)} of ${count(run.steps)}`], ['val loss', value(run.val_loss)],
    ...DATA.columns.map((name, i) => [name, run.fields[i]])]];
}

function runs() {
  const ends = DATA.runs.some(run => run.end), columns = ['run', 'status', 'step', 'of', 'loss', 'val loss', ...(ends ? ['predicted end', '95%'] : []), ...DATA.columns];
  const status = run => el('td', {class: `status ${run.status}`}, run.status);
  return wide(panel(`Runs: ${DATA.counts}`, table(columns, DATA.runs.map(run => [run.name, status(run), count(run.step), count(run.steps), value(run.loss), value(run.val_loss),
    ...(ends ? (run.end ? [format(run.end[0]), range(run.end.slice(1))] : [NO_VALUE, NO_VALUE]) : []), ...run.fields]), 'runs')));
}

function wide(node) { node.classList.add('wide'); return node; }

function faults() {
  const list = el('ul', {class: 'warnings'}), failed = DATA.runs.filter(run => run.why);
  for (const run of failed) list.append(el('li', {}, el('b', {}, run.name), ` ${run.status}: ${run.why}`));
  return failed.length ? panel('What failed, and why', list) : '';
}

function surprises() {
  const list = el('ul', {class: 'warnings'}), left = DATA.runs.filter(run => run.left);
  for (const run of left) list.append(el('li', {}, el('b', {}, run.name), ` ${run.left}: ${format(run.val_loss)}, predicted ${format(run.end[0])} (${range(run.end.slice(1))})`));
  return left.length ? panel('Not as predicted', list) : '';
}

function laws() {
  if (!DATA.laws.length) return panel('The law so far', el('p', {class: 'note'}, capital(DATA.why_not)));
  const out = el('div', {class: 'panel'});
  for (const group of DATA.laws) out.append(panel(group.name ? `The law so far: ${group.name}` : 'The law so far', group.name && el('p', {class: 'note'}, capital(group.law.verdict)), lawPlot(group, 600, 400), lawLegend(group)), lights(group));
  return out;
}

// Reloads the file while runs are in progress, but not from under a reader's hands; the button stops it.
function clock() {
  const out = el('p', {class: 'formula'}, `${DATA.title}, written ${DATA.written}. `);
  if (!DATA.live) return out;
  const button = el('button', {'aria-pressed': 'false'}, 'pause');
  button.addEventListener('click', () => { paused = !paused; button.setAttribute('aria-pressed', String(paused)); });
  out.append(`Reloads every ${DATA.live} seconds while runs are in progress. `, el('span', {class: 'switch inline'}, button));
  return out;
}

let paused = false;
if (DATA.live) setInterval(() => {
  const used = document.activeElement !== document.body || !tipNode.hidden || String(getSelection());
  if (!paused && !used && !document.hidden) location.reload();
}, 1000 * DATA.live);

const meanings = words([
  ['predicted end', 'The loss at which the law of the runs that have finished expects this run to end, and the interval for a new run. The law is fitted again as runs finish. Of a run that has finished, the prediction is the last one before it did. A run that ends outside the interval, or is below it before its end, is listed above.'],
  ['silent', 'The run was going, and its folder has shown no sign of it for some minutes.'],
  ['stopped, waiting, damaged', 'It can be resumed by the same command; it has not begun; its run.json cannot be read, and the list above says what to do.']]);

// A verdict begins with a word; other headlines begin with the name of a group or folder, which is shown as it is.
const headline = text => DATA.laws.some(group => group.law.verdict === text) ? capital(text) : text;

drawPage(() => document.getElementById('main').replaceChildren(el('h1', {}, headline(DATA.headline)), clock(),
  el('div', {class: 'halves'}, curves(), laws()), faults(), surprises(), el('div', {class: 'grid'}, runs(), meanings)));
