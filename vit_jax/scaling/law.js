// The report page. It shows one group's verdict, figures and checklist at a time.

function lawPanel(group) {
  const holder = el('div', {}, lawPlot(group)), bar = el('span', {class: 'switch'});
  for (const [text, value] of [['as measured', false], ['minus irreducible', true]]) {
    const button = el('button', {'aria-pressed': String(minusE === value)}, text);
    if (value && !(group.irreducible > 0)) { button.disabled = true; button.title = 'the irreducible part is 0'; }
    button.addEventListener('click', () => {
      minusE = value;
      holder.replaceChildren(lawPlot(group));
      for (const other of bar.children) other.setAttribute('aria-pressed', String(other === button));
    });
    bar.append(button);
  }
  return panel('The law', bar, holder, lawLegend(group));
}

function together() {
  const groups = DATA.groups;
  if (groups.length < 2) return '';
  const points = groups.flatMap(g => g.points), legend = el('div', {class: 'legend'});
  const lines = groups.map(g => g.together), {x_label: label, by} = lines[0];
  const xs = [...points.map(p => p[by]), ...lines.flatMap(line => line.x)], ys = [...points.map(p => p.y), ...lines.flatMap(line => line.y)];
  const plot = new Plot({width: 1160, height: 440, x: {log: true, label, domain: domain(xs, true, 0.02)},
    y: {log: true, label: groups[0].figure.y, domain: domain(ys, true, 0.06)}});
  groups.forEach((g, i) => {
    const line = lines[i];
    if (line.band_law) plot.band(line.x, line.band_law[0], line.band_law[1], g.color, 0.16);
    plot.line(line.x, line.y, g.color);
    for (const p of g.points) plot.dot(p[by], p.y, g.color, 'fitted', () => describe(g, p), 3.6);
    legend.append(key(g.name + (line.label ? `, ${line.label}` : ''), [['line', {x1: 0, x2: 22, y1: 6, y2: 6, stroke: g.color, 'stroke-width': 2}]]));
  });
  const out = panel('All groups', plot.svg, legend);
  out.classList.add('wide');
  return out;
}

function coefficients(group) {
  const law = group.law, open = new Set(law.not_identified);
  const rows = Object.entries(law.coefficients).map(([name, value]) => [name,
    open.has(name) ? el('td', {class: 'open'}, 'not identified') : format(value), range(law.ci95 && law.ci95[name])]);
  return panel('Coefficients', table(['', 'value', '95%'], rows), el('p', {class: 'note'},
    `${law.n} points; ${law.objective.name}${law.objective.delta ? ', delta ' + format(law.objective.delta) : ''}; ` +
    (law.bootstrap.n ? `${law.bootstrap.n} refits to resamples of ${law.bootstrap.clusters} independent runs` : 'no intervals')));
}

function warnings(group) {
  const list = el('ul', {class: 'warnings'});
  for (const words of group.law.warnings) list.append(el('li', {}, words));
  return group.law.warnings.length ? panel('Warnings', list) : '';
}

function holdout(group) {
  const held = group.law.holdout;
  if (!held) return '';
  const rows = [...held.rows].sort((a, b) => b.size - a.size).map(r => [r.run, format(r.size), `${r.factor.toFixed(2)}×`, format(r.measured),
    format(r.predicted), range(r.ci95), range(r.ci95_run), percent(r.predicted / r.measured - 1), format(r.persistence), percent(r.persistence / r.measured - 1)]);
  const head = ['run', held.size, 'beyond', 'measured', 'predicted', '95% (law)', '95% (run)', 'error', '“no change”', 'its error'];
  const out = panel(`Held-out points (${rows.length}, largest first)`, table(head, rows, 'held-out points'),
    el('p', {class: 'note'}, `Typical error (RMSLE) ${percent(held.rmsle).slice(1)}; of “no change”, the forecast that ${group.figure.y} stays as in the largest fitted run, ${percent(held.rmsle_persistence).slice(1)}.`));
  out.classList.add('wide');
  return out;
}

function optimal(group) {
  const best = group.law.compute_optimal;
  if (!best) return '';
  const rows = best.rows.map(r => [format(r.flops), format(r.params), range(r.params_ci95), format(r.examples), range(r.examples_ci95),
    format(r.examples_per_param), range(r.examples_per_param_ci95), format(r.loss), range(r.loss_ci95), range(r.loss_run_ci95)]);
  const e = best.exponents, grows = name => `${format(e[name].value)}${e[name].ci95 ? ` (95%: ${range(e[name].ci95)})` : ''}`;
  const out = panel('Compute-optimal model and data', optimumPlots(group), table(['FLOPs', 'N*', '95%', 'D*', '95%', 'D*/N*', '95%', group.figure.y, '95% (law)', '95% (run)'], rows, 'compute-optimal model and data'),
    el('p', {class: 'note'}, `${best.cost}. N* grows as C^${grows('params')}, D* as C^${grows('examples')}.`));
  out.classList.add('wide');
  return out;
}

function isoflop(group) {
  if (!group.isoflop.length) return '';
  const all = group.isoflop, plot = new Plot({x: {log: true, label: 'params', domain: domain(all.flatMap(v => v.params), true)},
    y: {log: false, label: group.figure.y, domain: domain(all.flatMap(v => v.loss), false, 0.08)}});
  const legend = el('div', {class: 'legend'});
  for (const v of all) {
    plot.line(v.curve_x, v.curve_y, v.color);
    v.params.forEach((n, i) => plot.dot(n, v.loss[i], v.color, 'fitted', () => [`${format(v.flops)} FLOPs`, [['N', format(n)], [group.figure.y, format(v.loss[i])]]], 3.2));
    const about = () => [`optimum at ${format(v.flops)} FLOPs`, [['N*', format(v.optimum)], ['95%', range(v.interval)], ...(v.note ? [['note', v.note]] : [])]];
    if (v.inside) {
      if (v.interval) plot.line(v.interval, [v.optimum_loss, v.optimum_loss], 'var(--ink)', {'stroke-width': 2});
      plot.dot(v.optimum, v.optimum_loss, v.color, 'held', about, 5);
    }
    legend.append(key(`${format(v.flops)}${v.inside ? '' : ': minimum outside its grid'}`, [['line', {x1: 0, x2: 22, y1: 6, y2: 6, stroke: v.color, 'stroke-width': 2}]]));
  }
  const e = group.law.isoflop_exponent;
  return panel('IsoFLOP valleys', plot.svg, legend, el('p', {class: 'note'}, 'Hollow points are the optima, with their 95% intervals.' +
    (e ? ` N* grows as C^${format(e.value)}${e.ci95 ? ` (95%: ${range(e.ci95)})` : ''}.` : '')));
}

function residuals(group, name, words) {
  const chosen = group.points.filter(p => p[name]);
  if (new Set(chosen.map(p => p[name])).size < 2) return '';
  const clip = v => Math.max(-8, Math.min(8, v));
  const plot = new Plot({x: {log: true, label: words, domain: domain(chosen.map(p => p[name]), true)},
    y: {log: false, label: `residual (1 sigma = ${percent(group.law.diagnostics.sigma).slice(1)})`, domain: domain([-3, 3, ...chosen.map(p => clip(p.residual))], false)}});
  for (const v of [-2, 2]) plot.level(v, {'stroke-dasharray': '3 4'});
  plot.level(0);
  for (const p of chosen) plot.dot(p[name], clip(p.residual), p.color, p.state, () => describe(group, p), 3.6);
  return panel(`Residuals over ${words}`, plot.svg);
}

function cloud(group) {
  const c = group.cloud;
  if (!c) return '';
  const plot = new Plot({x: {log: false, label: c.names[0], domain: domain(c.x, false)}, y: {log: false, label: c.names[1], domain: domain(c.y, false)}});
  c.x.forEach((x, i) => plot.marks.append(svgEl('circle', {cx: plot.X(x), cy: plot.Y(c.y[i]), r: 2.4, fill: tone('#31688e'), 'fill-opacity': 0.35})));
  const [x, y] = [plot.X(c.best[0]), plot.Y(c.best[1])];
  plot.marks.append(svgEl('path', {d: `M${x - 8} ${y}h16M${x} ${y - 8}v16`, stroke: tone('#b5331e'), 'stroke-width': 2.4}));
  return panel(`Bootstrap of ${c.names.join(' and ')}`, plot.svg, el('p', {class: 'note'}, 'Each dot is a refit. The cross is the fit to all points.'));
}

function rollout(group) {
  if (!group.rollout.length) return '';
  const floor = 1e-4, size = v => Math.max(Math.abs(v), floor);
  const plot = new Plot({x: {log: true, label: 'size / largest fitted size', domain: domain([1, ...group.rollout.map(r => r.factor)], true)},
    y: {log: true, label: '|ln(predicted / measured)|', domain: domain(group.rollout.flatMap(r => [size(r.error), size(r.persistence)]), true)}});
  const sides = [['persistence', 'var(--faint)', '“no change”'], ['error', '#31688e', 'law']], legend = el('div', {class: 'legend'});
  for (const [side, color] of sides) for (const r of group.rollout) plot.dot(r.factor, size(r[side]), color, 'fitted', () => [r.run, [['fitted to', format(r.fitted_to)],
    ['distance', `${format(r.factor)}×`], ['error', percent(Math.exp(r.error) - 1)], ['“no change”', percent(Math.exp(r.persistence) - 1)]]], 2.4, 0.3);
  for (const [side, color, words] of sides) {
    const medians = group.rollout_medians;
    plot.line(medians.map(r => r.factor), medians.map(r => size(r[side])), color, {'stroke-width': 2.4});
    for (const r of medians) plot.dot(r.factor, size(r[side]), color, 'fitted', () => [`${words}, median`, [['distance', `${format(r.factor)}×`], ['error', format(r[side])]]], 3.6);
    legend.append(key(`${words} (line: median)`, [['circle', {cx: 11, cy: 6, r: 4, fill: color}]]));
  }
  return panel('Forecast error over distance', plot.svg, legend, el('p', {class: 'note'}, 'Fits to the runs below increasing sizes, each tested on all larger runs.'));
}

function curves(group) {
  if (!group.curves.length) return '';
  const plot = new Plot({x: {log: true, label: 'examples', domain: domain(group.curves.flatMap(c => c.x), true)},
    y: {log: true, label: group.figure.y, domain: domain(group.curves.flatMap(c => c.y), true)}});
  for (const c of group.curves) {
    plot.line(c.x, c.y, c.color, {'stroke-width': 1.1, 'stroke-opacity': 0.75});
    plot.dot(c.x[c.x.length - 1], c.y[c.y.length - 1], c.color, 'fitted', () => [c.run, [[group.figure.y, format(c.y[c.y.length - 1])]]], 3);
  }
  return panel('Learning curves', plot.svg, el('p', {class: 'note'}, 'A run that shares a trunk with others begins where it leaves it.'));
}

// The headline: of a comparison its answer, which begins with a group's name as it is, else what the law is worth. Other pairs of groups follow in a list.
function headline(group) {
  const law = group.law, [first, ...others] = DATA.multipliers.map(row => row.words), list = el('ul');
  for (const text of others) list.append(el('li', {}, text));
  const equation = el('p', {class: 'formula'}, el('code', {}, law.diagnostics.equation), ` — ${law.form === law.diagnostics.formula ? '' : law.form + '; '}${law.diagnostics.source}`);
  if (!first) return [el('h1', {}, (DATA.groups.length > 1 ? `${group.name}: ` : '') + capital(law.verdict)), equation];
  return [el('h1', {}, first), ...(others.length ? [list] : []), together(), el('h2', {class: 'group'}, `${group.name}: ${law.verdict}`), equation];
}

function meanings(group) {
  const law = group.law, sigma = percent(law.diagnostics.sigma).slice(1);
  return words([
    ['sigma', `The typical distance of a fitted run from the law: ${sigma} of ${group.figure.y}. One run in 20 is more than 2 sigma away by chance alone.`],
    ['“no change”', `The forecast that ${group.figure.y} of larger runs is that of the largest fitted run (${format(group.figure.persistence)}). A law that does not beat it has predicted nothing.`],
    ['identified', 'The points decide the value of the coefficient: its 95% interval is narrow and ends at no bound of the form. Predictions can be good where single coefficients are not identified.'],
    ['95% (law), 95% (run)', 'Where the law itself lies, and where a new run lies: the second interval adds the noise of a run.'],
    ['lineage', 'Runs that share a part of their training, such as branches of one trunk. They count as one independent run in the intervals.'],
    ['N, D, N*, D*', 'Parameters, and examples seen; with a star those that reach the lowest value for a number of training FLOPs.'],
    ['irreducible', 'The value that the law reaches with a model and data of any size.'],
    ['predictive, calibrated, identified', 'Green: tested and passed. Amber: not tested or not decided. Red: failed, and the reason says how.']]);
}

function checklist(group) {
  const body = el('tbody');
  for (const [what, answer] of group.checklist) body.append(el('tr', {}, el('td', {}, what), el('td', {}, answer)));
  const out = panel('How this law was made', el('table', {class: 'check'}, body), el('code', {class: 'command'}, DATA.command));
  out.classList.add('wide');
  return out;
}

let chosen = 0;

function show() {
  const group = filtered(DATA.groups[chosen]);
  minusE = false;
  hideTip();
  for (const [i, button] of [...document.getElementById('groups').children].entries()) button.setAttribute('aria-pressed', String(i === chosen));
  document.getElementById('main').replaceChildren(
    ...headline(group),
    el('div', {class: 'top'}, lawPanel(group), el('div', {}, lights(group), whatIf(group), coefficients(group), warnings(group))),
    el('div', {class: 'grid'}, DATA.multipliers.length ? '' : together(), holdout(group), optimal(group), isoflop(group), ...group.figure.inputs.map(([name, words]) => residuals(group, name, words)),
      residuals(group, 'learning_rate', 'learning rate'), cloud(group), rollout(group), curves(group),
      timePanel(DATA.time, 'The total over all runs that were read, including trunks and unfinished runs.'), meanings(group), checklist(group)));
}

if (DATA.groups.length > 1) DATA.groups.forEach((group, i) => {
  const button = el('button', {}, group.name);
  button.addEventListener('click', () => { chosen = i; filterBar(DATA.groups[chosen], show); show(); });
  document.getElementById('groups').append(button);
});
filterBar(DATA.groups[chosen], show);
drawPage(show);
