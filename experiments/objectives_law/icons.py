"""The icons of the concepts that are drawn most, as classes with names: a source of data for all objectives.

  --config.data.source=experiments.objectives_law.icons:most_drawn
"""

import collections
import dataclasses

import numpy as np

from vit_jax.data import prepared_pairs

CONCEPTS = 50
UNSEEN = 'Hugeicons'  # the artist who is `test`


def most_drawn(config):
  """{'train', 'test'} of the concepts with the most training pictures."""
  sources = prepared_pairs.open_prepared(f'icons@{UNSEEN}', config.data_dir)
  train = sources['train']
  kept = [label for label, _ in collections.Counter(train.labels.tolist()).most_common(CONCEPTS)]
  number = np.full(len(train.class_names), -1, np.int32)
  number[kept] = np.arange(CONCEPTS)
  return {split: _only(source, number, kept) for split, source in sources.items()}


def _only(source, number, kept):
  labels = number[source.labels]
  which = np.flatnonzero(labels >= 0)
  return dataclasses.replace(
      source, name='icons, most drawn', class_names=tuple(source.class_names[i] for i in kept),
      images=source.images[which], labels=labels[which], captions=[source.captions[i] for i in which])
