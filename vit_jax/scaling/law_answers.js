// Answers that need no Python: the law at any point, the optimum over compute, the points that a column chooses.

// A Catmull-Rom spline through `values` on a grid of nodes^axes (C order), at `places` counted in nodes from 0.
function spline(values, nodes, places) {
  if (!places.length) return values[0];
  const [place, ...rest] = places, stride = values.length / nodes, i = Math.max(0, Math.min(nodes - 2, Math.floor(place))), t = place - i;
  const at = k => spline(values.slice(k * stride, (k + 1) * stride), nodes, rest);
  const b = at(i), c = at(i + 1), a = i ? at(i - 1) : 3 * b - 3 * c + at(i + 2), d = i < nodes - 2 ? at(i + 2) : 3 * c - 3 * b + a;
  return b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

// What the law says at {name: number}, as {predicted, law_low, ...}, or the words that say what is wrong.
function ask(group, at) {
  const {axes, values} = group.grid, places = [];
  for (const {name, low, high, nodes} of axes) {
    const value = at[name];
    if (!(value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9))) return `Expected ${symbol(name)} from ${format(low)} to ${format(high)}.`;
    places.push(Math.log(value / low) / Math.log(high / low) * (nodes - 1));
  }
  const out = {};
  for (const [name, list] of Object.entries(values)) {
    const found = spline(list.map(v => v === null ? NaN : Math.log(v)), axes[0].nodes, places);
    out[name] = isNaN(found) ? null : Math.exp(found);
  }
  return out;
}

const symbol = name => ({params: 'N', examples: 'D'})[name] || name;

// Where a question lies: inside the fitted points, or how far outside.
function distance(axes, at) {
  const out = [];
  for (const {name, fitted_low, fitted_high} of axes) {
    if (at[name] > fitted_high * 1.0001) out.push(`${symbol(name)} is ${format(at[name] / fitted_high)} times the largest fitted value`);
    if (at[name] < fitted_low / 1.0001) out.push(`${symbol(name)} is ${format(fitted_low / at[name])} times below the smallest fitted value`);
  }
  return out.length ? `Extrapolated: ${out.join(', ')}.` : 'Within the range of the fitted points.';
}

let asked = {};  // {name: text}, kept while the page is drawn anew

function whatIf(group) {
  if (!group.grid) return '';
  const {axes, cost} = group.grid, form = el('div', {class: 'asked'}), answer = el('output', {'aria-live': 'polite'});
  const update = () => {
    const at = Object.fromEntries(axes.map(({name}) => [name, Number(asked[name])])), found = ask(group, at);
    if (typeof found === 'string') { answer.replaceChildren(el('p', {class: 'note'}, found)); return; }
    const rows = [[group.figure.y, format(found.predicted)]];
    if ('law_low' in found) rows.push(['95% (law)', range([found.law_low, found.law_high])], ['95% (run)', range([found.run_low, found.run_high])]);
    if (cost) rows.push(['training FLOPs', format(cost.k * at.params ** cost.q * at.examples)]);
    answer.replaceChildren(table(['', ''], rows), el('p', {class: 'note'}, distance(axes, at)));
  };
  for (const {name, fitted_low, fitted_high, high} of axes) {
    if (!(asked[name] > 0)) asked[name] = format(Math.min(2 * fitted_high, high));
    const input = el('input', {inputmode: 'decimal', autocomplete: 'off', value: asked[name], title: `fitted from ${format(fitted_low)} to ${format(fitted_high)}`});
    input.addEventListener('input', () => { asked[name] = input.value; update(); });
    form.append(el('label', {}, symbol(name), input));
  }
  update();
  return panel('What if?', form, answer);
}

// N* and D* over compute, with the points that were trained and the optima of the IsoFLOP valleys.
function optimumPlots(group) {
  const best = group.optimum, out = el('div', {class: 'grid pair'});
  if (!best) return '';
  const trained = group.points.filter(p => p.flops && p.params && p.examples), valleys = group.law.isoflop.filter(v => v.inside);
  const shown = [...trained.map(p => p.flops), ...best.flops];
  for (const name of ['params', 'examples']) {
    const band = best[`${name}_ci95`], ys = [...best[name], ...trained.map(p => p[name])];
    const plot = new Plot({x: {log: true, label: 'training FLOPs', domain: domain(shown, true, 0.02)},
      y: {log: true, label: `${symbol(name)}*`, domain: domain(ys, true, 0.04)}});
    if (trained.length) plot.shade(Math.max(...trained.map(p => p.flops)), Math.max(...shown) * 2, 'extrapolated');
    if (band) plot.band(best.flops, band[0], band[1], '#31688e', 0.25);
    plot.line(best.flops, best[name], '#31688e');
    for (const p of trained) plot.dot(p.flops, p[name], 'var(--faint)', 'fitted', () => describe(group, p), 2.6);
    for (const v of valleys) {
      const pair = name === 'params' && v.params_ci95;
      if (pair) plot.line([v.flops, v.flops], pair, 'var(--ink)', {'stroke-width': 2});
      plot.dot(v.flops, v[name], 'var(--ink)', 'held', () => [`valley at ${format(v.flops)} FLOPs`, [[`${symbol(name)}*`, format(v[name])], ...(pair ? [['95%', range(pair)]] : [])]], 5);
    }
    out.append(el('div', {}, plot.svg));
  }
  return el('div', {}, out, el('p', {class: 'note'}, 'The line is the optimum by the law, the band its 95% interval. Gray points are trained runs.' + (valleys.length ? ' Hollow points are the optima of the IsoFLOP valleys.' : '')));
}

let filter = ['', ''];  // [column, value]

function filtered(group) {
  const values = group.filters[filter[0]];
  return values && filter[1] !== '' ? {...group, points: group.points.filter((_, i) => values[i] === filter[1])} : group;
}

// Chooses the points that the figures show. It stands above the figures and survives their redrawing, and so does its focus.
function filterBar(group, draw) {
  const names = Object.keys(group.filters), bar = document.getElementById('filter') || el('section', {id: 'filter', 'aria-label': 'filter'});
  filter = ['', ''];
  bar.hidden = !names.length;
  document.getElementById('main').before(bar);
  const options = (list, none) => [el('option', {value: ''}, none), ...list.map(text => el('option', {value: text}, text))];
  const column = el('select', {}, ...options(names, 'all points')), value = el('select', {'aria-label': 'value'}), note = el('span', {class: 'note', 'aria-live': 'polite'});
  const change = () => {
    filter = [column.value, value.value];
    const points = filtered(group).points, text = isNaN(filter[1]) ? `"${filter[1]}"` : filter[1];
    note.textContent = filter[1] === '' ? '' : `${points.length} of ${group.points.length} points. The law is that of all; --where='${filter[0]}==${text}' fits one to these.`;
    draw();
  };
  column.addEventListener('change', () => {
    value.hidden = !column.value;
    value.replaceChildren(...options([...new Set(group.filters[column.value] || [])].filter(text => text !== '').sort((a, b) => a - b || a.localeCompare(b)), 'any'));
    change();
  });
  value.hidden = true;
  value.addEventListener('change', change);
  bar.replaceChildren(el('label', {}, 'Show ', column), value, note);
}
