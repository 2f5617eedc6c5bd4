"""What a page shows of pictures and texts, by a model whose embeddings are known."""

import dataclasses
from types import SimpleNamespace

import numpy as np

import vit_jax
from vit_jax.data import pipeline
from vit_jax.data.config import DataConfig
from vit_jax.inspection import text_samples

COLOURS = {'red': (250, 0, 0), 'green': (0, 250, 0), 'blue': (0, 0, 250)}


def _unit(rows):
  rows = np.asarray(rows, np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _model(wrong=()):
  """Pictures by their mean colour, texts by the colour that they name; what is `wrong` is taken for blue."""
  towers = SimpleNamespace(images=lambda images: _unit(images.mean(axis=(1, 2))), texts=lambda texts: _unit(
      [COLOURS['blue' if text in wrong else text] for text in texts]))
  return SimpleNamespace(embedder=towers, preprocessing=SimpleNamespace(frame=None))


def _data(count=90):
  names = [list(COLOURS)[i % 3] for i in range(count)]
  pictures = np.stack([np.full((8, 8, 3), COLOURS[name], np.uint8) for name in names])
  source = vit_jax.arrays(pictures, captions=names)
  return pipeline.open_data(dataclasses.replace(DataConfig(), source=source), to_train=False)


def test_retrieval_both_ways_tells_what_is_right():
  scored = {'image_to_text@1': 1.0, 'image_to_text@5': 1.0, 'image_to_text@10': 1.0, 'zero_shot@1': 0.5}
  found = text_samples.retrieval(_model(), _data(), 'test', scored)
  assert found['shares'] == [['text for a picture', 1.0, 1.0, 1.0], ['class by its name', 0.5, None, None]]
  assert len(found['pictures']) == 8 and {row['text'] for row in found['texts']} == set(COLOURS)
  for row in found['pictures']:
    assert row['found'][0][0] == row['text'] and [right for *_, right in row['found']] == [True, False, False]
    assert row['picture'].startswith('data:image/png') and row['found'][0][1] > 0.99 > row['found'][1][1]
  assert all(right for row in found['texts'] for *_, right in row['found'])  # five pictures of that text
  lost = text_samples.retrieval(_model(wrong=('red',)), _data(), 'test', {})
  assert lost['shares'] == [] and not any(right for row in lost['texts'] if row['text'] == 'red'
                                          for *_, right in row['found'])
  again = text_samples.retrieval(_model(), _data(), 'test', scored)
  assert [row['where'] for row in again['pictures']] == [row['where'] for row in found['pictures']]
