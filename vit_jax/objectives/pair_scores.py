"""How well pictures and texts of a whole split find one another: the loss on fixed candidates, and retrieval.

A contrastive loss grows with the number of candidates, so that of a batch compares no two runs. Here each pair is
scored among as many others as in every run: among the same ones, as the split alone decides which.
"""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from vit_jax.objectives.objective import Metric
from vit_jax.objectives.pair_loss import Kind, pair_loss

CANDIDATES = (256, 1024)  # the first is that of 'loss'
RANKS = (1, 5, 10)
ZERO_SHOT_RANKS = (1, 5)
MOST_RETRIEVED = 5_000  # candidates in retrieval: as many as COCO's test has (Karpathy & Fei-Fei 2015)

_SHARE = functools.partial(Metric, higher_is_better=True, share=True)
METRICS = {
    **{f'loss@{size}': Metric(shown=False) for size in CANDIDATES},
    **{f'{way}@{k}': _SHARE(shown=k == 1) for way in ('image_to_text', 'text_to_image') for k in RANKS},
    **{f'zero_shot@{k}': _SHARE(shown=k == 1) for k in ZERO_SHOT_RANKS},
    'zero_shot_error': Metric(share=True, shown=False),
}


def scores(kind: Kind, kept: Mapping[str, np.ndarray]) -> dict[str, float]:
  """The columns 'loss' and those of METRICS, of a split of N pairs.

  'loss' is the mean over pairs of the loss among 256 candidates, or among all if there are fewer. The columns
  'loss@256' and 'loss@1024' are there if there are so many. 'image_to_text@5' is the share of pictures of which at most
  four texts that are not theirs fit as well or better than the best that is; equal captions are one.

  Args:
    kind: the loss.
    kept: 'image' and 'text' [N, E] of unit length, 'caption' uint32 [N, 2], 'weight', 'scale' and 'bias' [N].
  """
  order = np.random.default_rng(0).permutation(len(kept['weight']))
  kept = {name: array[order] for name, array in kept.items()}
  out = {'loss': _loss(kind, kept, min(CANDIDATES[0], len(order)))}
  out |= {f'loss@{size}': _loss(kind, kept, size) for size in CANDIDATES if size <= len(order)}
  return out | _retrieval(kept)


def _loss(kind, kept, size):
  """The mean of the loss of each pair among `size` candidates: blocks, of which the last overlaps the one before."""
  count, total, done = len(kept['weight']), 0.0, 0
  for start in [*range(0, count - size, size), count - size]:
    block = {name: array[start:start + size] for name, array in kept.items()}
    loss_B = np.asarray(_shares(kind)(block), np.float64)
    new = slice(done - start, size)
    total += np.sum(loss_B[new], where=block['weight'][new] > 0)
    done = start + size
  return float(total / max(np.count_nonzero(kept['weight']), 1))


@functools.cache
def _shares(kind):
  return jax.jit(lambda block: pair_loss(kind, block['image'], block['text'], block['caption'], block['weight'],
                                         block['scale'][0], block['bias'][0]))


def _retrieval(kept):
  real = kept['weight'][:MOST_RETRIEVED] > 0
  image, text, caption = (kept[name][:MOST_RETRIEVED][real] for name in ('image', 'text', 'caption'))
  caption = caption[:, 0].astype(np.uint64) << np.uint64(32) | caption[:, 1]
  out = {}
  for way, (asked, found) in {'image_to_text': (image, text), 'text_to_image': (text, image)}.items():
    before = np.concatenate([_before(asked[i:i + 512] @ found.T, caption[i:i + 512, None] == caption[None])
                             for i in range(0, len(asked), 512)])
    out |= {f'{way}@{k}': float((before < k).mean()) for k in RANKS}
  return out


def _before(products, same):
  """How many that are not the same come before the best that is, or are as good (so that all alike is no success)."""
  best = np.max(products, axis=1, keepdims=True, initial=-np.inf, where=same)
  return np.sum(~(products < best) & ~same, axis=1)  # what is not a number comes first


def zero_shot(images: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> dict[str, float]:
  """'zero_shot@1' and 'zero_shot@5': the share of pictures whose class is among the nearest of `classes` [C, E].

  'zero_shot_error' is 1 minus the first.
  """
  products = images @ classes.T
  before = _before(products, np.arange(len(classes))[None] == labels[:, None])
  out = {f'zero_shot@{k}': float((before < k).mean()) for k in ZERO_SHOT_RANKS}
  return out | {'zero_shot_error': 1 - out['zero_shot@1']}

