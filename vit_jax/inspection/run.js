// The page of one run: scores, curves, classes, mistakes, attention.

function numbers() {
  const out = el('div', {class: 'numbers'});
  const add = (value, words) => out.append(el('div', {}, el('b', {}, value), words));
  if (SEVERAL) {
    add(share(S.map, 2), 'mean average precision');
    add(share(S.f1, 2), 'F1 of all decisions');
    add(share(S.f1_macro, 2), 'F1, mean of the classes');
    add(S.loss.toFixed(4), 'loss (sum of binary cross-entropies)');
  } else {
    add(share(S.accuracy, 2), 'accuracy');
    if (S.accuracy_top5 !== null) add(share(S.accuracy_top5, 2), 'top-5 accuracy');
    add(S.loss.toFixed(4), 'loss (cross-entropy)');
  }
  add(share(S.ece, 2), 'calibration error');
  return out;
}

function calibration() {
  const [said, right] = SEVERAL ? ['probability', 'share of labels'] : ['confidence', 'accuracy'];
  const bins = S.calibration, plot = new Plot({width: 470, height: 360, x: {log: false, label: said, domain: [0, 1]}, y: {log: false, label: right, domain: [0, 1]}});
  const most = Math.max(...bins.map(b => b.n)), width = plot.X(bins[0].high) - plot.X(bins[0].low);
  for (const b of bins) if (b.n) {
    const top = plot.Y(b.accuracy), even = plot.Y(b.confidence), x = plot.X(b.low);
    const bar = svgEl('rect', {x: x + 1, y: top, width: width - 2, height: plot.box.bottom - top, fill: tone(BLUE), 'fill-opacity': 0.25 + 0.65 * Math.sqrt(b.n / most)});
    const tip = () => [`${said} ${share(b.low, 0)} to ${share(b.high, 0)}`, [['predictions', count(b.n)], [`mean ${said}`, share(b.confidence)], [SEVERAL ? 'labelled' : 'right', share(b.accuracy)]]];
    plot.marks.append(bar, svgEl('line', {x1: x + 1, x2: x + width - 1, y1: even, y2: even, stroke: tone(RED), 'stroke-width': 2}));
    tipped(bar, tip);
  }
  plot.line([0, 1], [0, 1], 'var(--axis)', {'stroke-dasharray': '4 4', 'stroke-width': 1});
  const confidence = DATA.confidence.charAt(0).toUpperCase() + DATA.confidence.slice(1);
  return panel('Calibration', plot.svg, el('p', {class: 'note'}, `${confidence}. Bars: ${right} of the predictions in each bin of ${said} (stronger: more predictions); ` +
    `red: their mean ${said}. Expected calibration error over ${bins.length} bins: ${share(S.ece, 2)}.`));
}

function matrix() {
  const cells = S.confusion;
  if (!cells) return '';
  const n = cells.length, names = S.classes.map(c => c.class), size = Math.max(9, Math.min(42, 480 / n)), named = n <= 40;
  const left = named ? 14 + 6.3 * Math.max(...names.map(name => Math.min(name.length, 14))) : 20, top = 4;
  const width = left + n * size + 4, low = top + n * size, height = low + left + 6;
  const svg = svgEl('svg', {viewBox: `0 0 ${width} ${height}`, class: 'matrix', role: 'img', 'aria-label': 'confusion matrix', style: `max-width:${1.25 * width}px`});
  svg.append(svgEl('rect', {x: left, y: top, width: n * size, height: n * size, fill: 'var(--wash)'}));
  for (let i = 0; i < n; i++) {
    const total = Math.max(1, S.classes[i].n);
    for (let j = 0; j < n; j++) if (cells[i][j]) {
      const part = cells[i][j] / total, [x, y] = [left + j * size, top + i * size];
      const mix = Math.sqrt(part), to = i === j ? [8, 48, 107] : [165, 30, 20], from = [245, 247, 250];
      const rect = svgEl('rect', {x, y, width: size - (n > 60 ? 0 : 1), height: size - (n > 60 ? 0 : 1), fill: `rgb(${from.map((f, k) => Math.round(f + (to[k] - f) * mix))})`});
      const tip = () => [`${names[i]} taken for ${names[j]}`, [['pictures', count(cells[i][j])], ['of the label', share(part)]]];
      svg.append(rect);
      tipped(rect, tip);
      if (n <= 20) svg.append(svgEl('text', {x: x + size / 2, y: y + size / 2 + 3.5, 'text-anchor': 'middle', class: mix > 0.45 ? 'count' : 'count dark'}, count(cells[i][j])));
    }
    if (named) {
      const at = (i + 0.5) * size;
      svg.append(svgEl('text', {x: left - 6, y: top + at + 4, 'text-anchor': 'end'}, cut(names[i], 14)),
        svgEl('text', {'text-anchor': 'end', transform: `translate(${left + at + 4} ${low + 7}) rotate(-60)`}, cut(names[i], 14)));
    }
  }
  return panel('Confusion matrix', svg, el('p', {class: 'note'}, 'Rows: labels; columns: predictions. Colour: the share of the row; mistakes in red.'));
}

function classes() {
  const by = SEVERAL ? 'average_precision' : 'recall', shares = SEVERAL ? [['average precision', by], ['F1', 'f1'], ['recall', 'recall'], ['precision', 'precision']] : [['recall', 'recall'], ['precision', 'precision']];
  const rows = [...S.classes].filter(c => c.n || c.predicted).sort((a, b) => (a[by] ?? -1) - (b[by] ?? -1));
  const cell = value => el('td', value === null ? {} : {class: 'bar', style: `background-image:linear-gradient(var(--bar),var(--bar));background-size:${100 * value}% 70%`}, share(value));
  const taken = c => SEVERAL ? [] : [c.times ? `${c.taken_for} (${count(c.times)})` : ''];
  return panel(`Classes (${count(rows.length)}), the weakest first`, table(['class', 'n', ...shares.map(([title]) => title), ...(SEVERAL ? [] : ['most often taken for'])],
    rows.map(c => [c.class, count(c.n), ...shares.map(([, name]) => cell(c[name])), ...taken(c)]), 'classes'));
}

function pairs() {
  if (!DATA.pairs.length || S.confusion) return '';
  return panel('Most often confused', table(['it is', 'taken for', 'times', 'of the class'], DATA.pairs.map(([a, b, n, part]) => [a, b, count(n), share(part)]), 'confused pairs'));
}

function mistakes() {
  if (!DATA.mistakes.length) return '';
  const list = el('div', {class: 'pictures'});
  for (const e of DATA.mistakes) {
    const picture = image(e.picture, e.where);
    list.append(el('figure', {}, el('div', {class: 'row'}, picture),
      el('figcaption', {}, el('b', {}, e.predicted), ` ${share(e.confidence)}`, el('br'), el('span', {}, `is ${e.label}`))));
    tipped(picture, () => [e.where, [[SEVERAL ? 'decided' : 'taken for', `${e.predicted} (${share(e.confidence)})`], [SEVERAL ? 'labels' : 'label', e.label]]], list);
  }
  const out = panel('Most confident mistakes', list, el('p', {class: 'note'}, `Red: ${SEVERAL ? 'the wrong decision about a class' : 'what it was taken for'}, and how surely. Some may be labelled wrongly: point at a picture, tap it or move to it with the arrows to see its place.`));
  out.classList.add('after');
  return out;
}

function attentionOf(title, examples, note) {
  const shown = examples.filter(e => e.rollout);
  if (!shown.length) return '';
  const list = el('div', {class: 'pictures triple'});
  for (const e of shown) {
    const right = e.predicted === e.label;
    list.append(el('figure', {}, el('div', {class: 'row'}, image(e.picture, e.where), image(e.last, 'last layer, mean of the heads'), image(e.rollout, 'attention rollout')),
      el('figcaption', {}, right ? e.label : el('b', {}, e.predicted), ` ${share(e.confidence)}`, el('span', {}, right ? '' : `, is ${e.label}`))));
  }
  const out = panel(title, list, el('p', {class: 'note'}, note));
  out.classList.add('after');
  return out;
}

function distance() {
  const d = DATA.distance;
  if (!d) return '';
  const layers = d.values.map((_, i) => i + 1), every = d.values.flat();
  const plot = new Plot({width: 470, height: 300, x: {log: false, whole: true, label: 'layer', domain: [0.5, layers.length + 0.5]}, y: {log: false, label: 'mean attention distance (pixels)', domain: [0, 1.08 * Math.max(d.even, ...every)]}});
  plot.level(d.even, {'stroke-dasharray': '2 4', 'stroke-width': 1.4});
  plot.line(layers, d.values.map(heads => heads.reduce((a, b) => a + b, 0) / heads.length), BLUE);
  d.values.forEach((heads, i) => heads.forEach((v, h) => plot.dot(i + 1, v, BLUE, 'fitted', () => [`layer ${i + 1}, head ${h + 1}`, [['distance', `${format(v)} pixels`]]], 4, 0.6)));
  return panel('How far each head looks', plot.svg, el('p', {class: 'note'}, 'A dot a head, mean over the pictures of this page; dotted: a head that attends to all patches alike.'));
}

const meanings = words([
  ...(SEVERAL ? [
    ['average precision', 'The mean precision of the pictures with the highest probabilities of a class, over the places where one with the label stands: 100% where all that have the label come first. Their mean over the classes is the mean average precision.'],
    ['F1', `Twice the classes that were said rightly, over those that were said plus those that are there. A class is said where its probability is above ${S.threshold}.`],
  ] : [['accuracy, 95%', 'The share of pictures classified correctly, and the interval in which that of many more pictures of the same kind lies 19 times out of 20.']]),
  ['recall, precision', 'Of the pictures of a class, the share that was recognised; of the pictures taken for a class, the share that was of it.'],
  ['calibration error', `How far ${SEVERAL ? 'probabilities and shares of labels' : 'confidence and accuracy'} are apart on average: 0% where nine of ten answers given with 90% confidence are right.`],
  ['attention rollout', 'How much each patch contributes to the answer when the attention of all layers is multiplied through.']]);

const MAPS = 'The picture, what the last layer attends to (mean of the heads), and attention rolled out over all layers.';

drawPage(() => document.getElementById('main').replaceChildren(
  el('h1', {}, DATA.headline), el('p', {class: 'formula'}, DATA.name), numbers(),
  el('div', {class: 'top'}, column(curves(), timePanel(DATA.time)), column(facts(), events())),
  el('div', {class: 'two'}, column(matrix(), pairs(), distance()), column(classes(), calibration())), mistakes(), ...texts(),
  attentionOf('Attention', DATA.right, `${MAPS} One right answer a class.`),
  attentionOf('Attention in mistakes', DATA.mistakes, DATA.right.length ? 'The same, of the most confident mistakes.' : MAPS), meanings, config()));
