// What a run makes of pictures and texts: retrieval both ways, and captions with their scores. DATA.texts may be null.
const nats = value => `${value.toFixed(2)} nats`;

function retrieved() {
  const r = DATA.texts && DATA.texts.retrieval;
  if (!r) return [];
  const rows = r.shares.map(([name, ...values]) => [name, ...values.map(value => share(value))]);
  const shares = panel('Retrieval and zero-shot', table(['of the split', '@1', '@5', '@10'], rows, 'retrieval'),
    el('p', {class: 'note'}, 'The share of pictures, or texts, with a right one among the 1, 5 or 10 nearest.'));
  const texts = el('div', {class: 'asked'});
  for (const e of r.pictures) {
    const list = el('ol');
    for (const [text, cosine, right] of e.found) list.append(el('li', right ? {class: 'right'} : {}, text, el('span', {}, ` ${cosine.toFixed(2)}${right ? ', right' : ''}`)));
    texts.append(el('figure', {}, el('div', {class: 'row'}, image(e.picture, e.where)), el('figcaption', {}, list, el('span', {}, `its text: ${e.text}`))));
  }
  const pictures = el('div', {class: 'asked wide'});
  for (const e of r.texts) {
    const row = el('div', {class: 'row'});
    for (const [source, where, cosine, right] of e.found) row.append(el('div', right ? {class: 'right'} : {}, image(source, where), el('span', {}, `${cosine.toFixed(2)}${right ? ', right' : ''}`)));
    pictures.append(el('figure', {}, el('figcaption', {}, el('strong', {}, e.text)), row));
  }
  const note = `Drawn at random among ${count(r.candidates)} pairs of the split, with cosines. An equal text is right.`;
  return [after(shares), after(panel('Texts found for a picture', texts, el('p', {class: 'note'}, note))),
    after(panel('Pictures found for a text', pictures))];
}

function captions() {
  const c = DATA.texts && DATA.texts.captions;
  if (!c) return [];
  const list = el('div', {class: 'asked'});
  for (const e of c) {
    const said = el('figcaption', {}, e.question ? el('span', {}, e.question, el('br')) : '', el('strong', e.text === e.truth ? {class: 'right'} : {}, e.text || '(nothing)'),
      el('span', {}, ` ${nats(e.log_p)}`), el('br'), el('span', {}, e.text === e.truth ? 'to the letter' : `its text: ${e.truth} (${nats(e.truth_log_p)})`));
    list.append(el('figure', {}, el('div', {class: 'row'}, image(e.picture, e.where)), said));
  }
  return [after(panel('What it writes', list, el('p', {class: 'note'},
    'Of pictures drawn at random: the likeliest token at each step, and log p of the whole text. Below: log p of the text that the picture has.')))];
}

function after(section) { section.classList.add('after'); return section; }

function texts() { return [...retrieved(), ...captions()]; }
