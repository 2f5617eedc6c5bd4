// The figure of a law: points, lines and bands. `group` is a payload of scaling/payload.py.
const COUNTS = [['params', 'N'], ['params_non_embedding', 'N without embeddings and head'], ['examples', 'examples seen'],
  ['unique_examples', 'unique examples'], ['flops', 'FLOPs'], ['learning_rate', 'learning rate'], ['step', 'step']];
let minusE = false;

function describe(group, p) {
  const rows = [[group.figure.y, `${format(p.y)}, law ${format(p.predicted)} (${p.residual >= 0 ? '+' : ''}${p.residual.toFixed(1)} sigma)`]];
  rows.push(['point', {fitted: 'fitted', held: 'held out', below: 'below the cut-off'}[p.state] + (p.stage ? `, ${p.stage}` : '')]);
  for (const [name, words] of group.figure.inputs) if (!COUNTS.some(([key]) => key === name)) rows.push([words, format(p[name])]);
  for (const [key, words] of COUNTS) if (p[key] !== null && p[key] !== undefined) rows.push([words, count(p[key])]);
  p.differs.forEach((text, i) => rows.push([i ? '' : 'vs. most similar run', text]));
  return [p.run, rows];
}

function lawPlot(group, width = 860, height = 470) {
  const f = group.figure, shift = minusE ? group.irreducible : 0;
  const banded = f.lines.filter(line => line.band_run);
  const xs = [...group.points.map(p => p.x), ...f.lines.map(line => line.x[line.x.length - 1])];
  const ys = [...group.points.map(p => p.y - shift), ...f.lines.flatMap(line => line.y.map(v => v - shift)), f.persistence - shift];
  const span = Math.max(...ys) / Math.min(...ys.filter(v => v > 0)), edges = banded.flatMap(line => line.band_run.flat()).map(v => v - shift);
  ys.push(...edges.filter(v => v >= Math.min(...ys) / span && v <= Math.max(...ys) * span));
  const plot = new Plot({width, height, x: {log: true, label: f.x, domain: domain(xs, true, 0.02)},
    y: {log: true, label: minusE ? `${f.y} − ${format(shift)} (irreducible)` : f.y, domain: domain(ys, true, 0.04)}});
  plot.shade(f.fitted_to, Math.max(...xs) * 2, 'extrapolated');
  for (const line of banded) {
    const less = ys_ => ys_.map(v => v - shift);
    plot.band(line.x, less(line.band_run[0]), less(line.band_run[1]), line.color, 0.12);
    plot.band(line.x, less(line.band_law[0]), less(line.band_law[1]), line.color, 0.32);
  }
  for (const line of f.lines) plot.line(line.x, line.y.map(v => v - shift), line.color, line.beyond ? {'stroke-dasharray': '6 4'} : {});
  plot.level(f.persistence - shift, {'stroke-dasharray': '2 4', 'stroke-width': 1.4});
  for (const state of ['below', 'fitted', 'held']) for (const p of group.points) if (p.state === state)
    plot.dot(p.x, p.y - shift, p.color, state, () => describe(group, p), state === 'held' ? 5 : 4.2);
  return plot.svg;
}

function lawLegend(group) {
  const c = group.figure.lines.length ? (group.figure.lines.find(line => line.band_run) || group.figure.lines[0]).color : 'var(--ink)';
  const has = state => group.points.some(p => p.state === state), out = el('div', {class: 'legend'});
  const circle = (fill, stroke) => ['circle', {cx: 11, cy: 6, r: 4, fill, stroke, 'stroke-width': 1.6}];
  const bar = (opacity) => ['rect', {x: 1, y: 1, width: 20, height: 10, fill: c, 'fill-opacity': opacity}];
  const stroke = (color, dash) => ['line', {x1: 0, x2: 22, y1: 6, y2: 6, stroke: color, 'stroke-width': 2, 'stroke-dasharray': dash}];
  if (has('fitted')) out.append(key('fitted', [circle('var(--soft)', 'var(--soft)')]));
  if (has('held')) out.append(key('held out', [circle('var(--paper)', 'var(--soft)')]));
  if (has('below')) out.append(key('below the cut-off', [circle('var(--muted)', 'var(--faint)')]));
  const banded = group.figure.lines.find(line => line.band_run);
  if (banded) out.append(key(`95% confidence, law${banded.label ? ', ' + banded.label : ''}`, [bar(0.32)]), key('95% prediction, new run', [bar(0.12)]));
  out.append(key(`“no change”: ${group.figure.y} stays as in the largest fitted run`, [stroke('var(--faint)', '2 4')]));
  for (const line of group.figure.lines) if (line.label) out.append(key(line.label + (line.beyond ? ' (not fitted)' : ''), [stroke(line.color, line.beyond ? '6 4' : 'none')]));
  return out;
}

function lights(group) {
  const list = el('ul', {class: 'lights'});
  for (const [name, found] of Object.entries(group.law.lights)) list.append(el('li', {class: found.light}, el('b', {}, `${name}: ${found.light}`), ` ${found.reason}`));
  return panel('Can it be trusted?', list);
}
