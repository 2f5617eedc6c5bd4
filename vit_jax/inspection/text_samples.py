"""What the page of a run shows of pictures and texts: retrieval both ways with pictures, and captions with scores."""

import contextlib
from typing import Any

import numpy as np

from vit_jax.data import pipeline
from vit_jax.data import text as text_lib
from vit_jax.inspection import overlay
from vit_jax.inspection.captioner import Captioner
from vit_jax.inspection.pair_model import PairModel

CANDIDATES = 1_000  # pairs among which is looked for what is shown
ASKED = 8  # pictures, and texts, that are shown with what is found for them
TEXTS, PICTURES = 3, 5  # found for each
CAPTIONED = 12  # pictures
_SHARES = {'text for a picture': 'image_to_text', 'picture for a text': 'text_to_image',
           'class by its name': 'zero_shot'}


def retrieval(pairs: PairModel, data: pipeline.Data, split: str, scored: dict[str, Any]) -> dict[str, Any]:
  """Some pictures with the texts that are nearest, and the reverse, of pairs drawn at random.

  Args:
    pairs: the model.
    data: has captions; those that are evaluated are the first of each picture.
    split: of the data.
    scored: the row of metrics.jsonl of that split; {} if it is not known.

  Returns:
    {shares: rows [words, @1, @5, @10], candidates, pictures and texts: what is asked, with what is found}.
  """
  chosen = _chosen(data, split, CANDIDATES)
  places, images = _read(data, split, chosen, pairs)
  captions = [data.captions(split)[place][0] for place in places]
  distinct = list(dict.fromkeys(captions))
  images_NE, texts_CE = pairs.embedder.images(images), pairs.embedder.texts(distinct)
  products_NC = images_NE @ texts_CE.T
  where = [data.where(split, place) for place in places]

  def of_picture(i):
    found = [[distinct[c], float(products_NC[i, c]), distinct[c] == captions[i]]
             for c in np.argsort(-products_NC[i], kind='stable')[:TEXTS]]
    return {'picture': overlay.data_uri(images[i]), 'where': where[i], 'text': captions[i], 'found': found}

  def of_text(c):
    found = [[overlay.data_uri(images[i]), where[i], float(products_NC[i, c]), captions[i] == distinct[c]]
             for i in np.argsort(-products_NC[:, c], kind='stable')[:PICTURES]]
    return {'text': distinct[c], 'found': found}

  rng = np.random.default_rng(0)
  some = lambda count: rng.permutation(count)[:ASKED].tolist()
  shares = [[words, *(scored.get(f'{name}@{k}') for k in (1, 5, 10))] for words, name in _SHARES.items()
            if f'{name}@1' in scored]
  return {'shares': shares, 'candidates': len(places), 'pictures': list(map(of_picture, some(len(places)))),
          'texts': list(map(of_text, some(len(distinct))))}


def captions(captioner: Captioner, data: pipeline.Data, split: str) -> list[dict[str, Any]]:
  """What is written about some pictures, drawn at random, or answered; with log p, and that of the text they have."""
  places, images = _read(data, split, _chosen(data, split, CAPTIONED), captioner)
  return [_written(captioner, image, data.captions(split)[place][0]) | {
      'picture': overlay.data_uri(image), 'where': data.where(split, place)} for place, image in zip(places, images)]


def _written(captioner, image, caption):
  """What is written about a picture, and what it has."""
  question, tab, truth = caption.partition(text_lib.QUESTION_END)
  question, truth = (question, truth) if tab else (None, caption)
  ((text, log_p),) = captioner.write(image[None], question, cut=True)[0]
  return {'question': question, 'text': text, 'log_p': log_p, 'truth': truth,
          'truth_log_p': captioner.log_p(image[None], truth, question)}


def _chosen(data, split, most):
  """Places of the split, drawn at random, in order."""
  return np.sort(np.random.default_rng(0).permutation(data.size(split))[:most])


def _read(data, split, chosen, model):
  """(places, pictures uint8 [n, H, W, C]) of those of the chosen ones that can be read."""
  wanted, places, images, first = set(chosen.tolist()), [], [], 0
  size = 64
  with contextlib.closing(data.eval_batches(split, size, frame=model.preprocessing.frame)) as batches:
    for batch in batches:
      batches.take_errors()
      for row in np.flatnonzero(batch['weight'] > 0):
        if first + row in wanted:
          places.append(int(first + row))
          images.append(np.array(batch['image'][row]))
      first += size
  return places, np.stack(images)
