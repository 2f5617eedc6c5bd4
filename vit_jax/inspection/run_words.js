// The page of one run that is about texts and not about classes: scores, curves, retrieval, captions.
function numbers() {
  const out = el('div', {class: 'numbers'});
  for (const [name, value, isShare] of DATA.numbers) out.append(el('div', {}, el('b', {}, isShare ? share(value, 2) : value.toFixed(4)), name));
  return out;
}

drawPage(() => document.getElementById('main').replaceChildren(
  el('h1', {}, DATA.headline), el('p', {class: 'formula'}, DATA.name), numbers(),
  el('div', {class: 'top'}, column(curves(), timePanel(DATA.time)), column(facts(), events())), ...texts(), config()));
