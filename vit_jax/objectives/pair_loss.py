"""Losses of a batch of pairs: every picture is compared with every text, on any number of devices.

The sigmoid loss (Zhai et al. 2023, "Sigmoid loss for language image pre-training", eq. 1) and the softmax loss in both
directions (Radford et al. 2021, "CLIP", fig. 3), with one change: equal captions are positives. A picture matches each
text that reads as its own; in the softmax loss it is to match them equally (Yang et al. 2022, "UniCL", eqs. 2 and 3).
Where all captions differ these are the published losses.

No device ever holds the logits of the batch, nor of its own pictures with all texts. Each keeps its pictures; the texts
travel from device to device round a ring, with what is summed for them, and come home. Where they meet, logits are
computed in tiles. The backward pass makes them again on a second round. For B pairs of width E on n devices, each holds
O(B E / n + TILE^2) and computes 8 B^2 E / n FLOPs: for B = 32,768 and E = 768 a five-hundredth of what the classifier's
step of a ViT-B/16 computes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from vit_jax.data.text import lengths
from vit_jax.parallel.mesh import by_compiler
from vit_jax.parallel.rules import mesh_axes, spec

TILE = 1024  # the most pictures, and texts, whose logits are computed at a time
_LEAST = float(jnp.finfo(jnp.float32).min)

Kind = Literal['sigmoid', 'softmax']


class Tile(NamedTuple):
  """Some pictures and some texts; the entries of both have a leading axis of their own.

  Attributes:
    image, text: {'embedding' [n, E], 'caption' uint32 [n, 2], 'weight' [n]}; in the backward pass also the cotangent
      'slope' [n] and what the loss has kept.
    products_IT: of the embeddings.
    logits_IT: scale x products + bias.
    same_IT: whether the text is the picture's.
  """
  image: dict
  text: dict
  products_IT: jax.Array
  logits_IT: jax.Array
  same_IT: jax.Array


class _Loss(NamedTuple):
  """One of the losses, by what it sums for each picture and each text over the tiles.

  Attributes:
    start: what the sums begin at, for pictures and for texts: {name: number}.
    visit: (tile, sums of its pictures, sums of its texts) -> the sums with the tile.
    finish: (sums [n], sums [n]) -> (loss of each pair [n], what the slopes need of pictures, of texts).
    slopes: tile -> the derivative of the loss by each logit.
  """
  start: tuple[dict[str, float], dict[str, float]]
  visit: Callable[[Tile, dict, dict], tuple[dict, dict]]
  finish: Callable[[dict, dict], tuple[jax.Array, dict, dict]]
  slopes: Callable[[Tile], jax.Array]


def pair_loss(kind: Kind, images_BE: jax.Array, texts_BE: jax.Array, captions_B2: jax.Array, weight_B: jax.Array,
              scale: jax.Array, bias: jax.Array) -> jax.Array:
  """The share of each pair in the loss, float32 [B]; the mean, weighted by `weight_B`, is the published loss.

  Of the sigmoid loss it is the sum over the texts that its picture is compared with, of the softmax loss half the
  cross-entropy of its picture among the texts and half that of its text among the pictures.

  Args:
    kind: the loss.
    images_BE, texts_BE: embeddings of unit length, float32.
    captions_B2: `caption_hash` of the texts.
    weight_B: pairs of weight 0 do not count, neither as pictures nor as texts.
    scale, bias: of the logits, scalars: t and b of SigLIP; the bias changes nothing in the softmax loss.
  """
  known = {'caption': captions_B2, 'weight': weight_B}
  return loss_among(kind, {'embedding': images_BE, **known}, {'embedding': texts_BE, **known}, scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss_among(kind: Kind, pictures: dict[str, jax.Array], texts: dict[str, jax.Array], scale: jax.Array,
               bias: jax.Array) -> jax.Array:
  """`pair_loss` of I pictures among T texts, float32 [I]. The softmax loss needs the pictures of all the texts.

  The sigmoid loss of a batch is the sum of those of its slices of pictures, each among all texts.

  Args:
    kind, scale, bias: as for `pair_loss`.
    pictures, texts: {'embedding' [n, E], 'caption' uint32 [n, 2], 'weight' [n]} of each.
  """
  return _forward(kind, pictures, texts, scale, bias)[0]


def caption_hash(tokens_BL: jax.Array) -> jax.Array:
  """64 bits of each caption, uint32 [B, 2]: equal for equal tokens, however much padding follows.

  Of 32,768 captions two different ones are taken for equal with a probability of 3e-11.
  """
  places_L = jnp.arange(tokens_BL.shape[1], dtype=jnp.uint32)
  real_BL = places_L[None] < lengths(tokens_BL)[:, None].astype(jnp.uint32)  # 0 is a token too, CLIP's '!'
  tokens_BL = tokens_BL.astype(jnp.uint32)

  def one(seed):
    mixed_BL = _mixed(tokens_BL ^ _mixed(places_L + jnp.uint32(seed))[None])
    return jnp.sum(mixed_BL, axis=1, where=real_BL, dtype=jnp.uint32)

  return jnp.stack([one(0x9E3779B9), one(0x7F4A7C15)], axis=1)


def _mixed(x):
  """A permutation of the uint32 in which each bit depends on all (the last step of MurmurHash3, Appleby 2011)."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ (x >> jnp.uint32(shift))) * jnp.uint32(factor)
  return x ^ (x >> jnp.uint32(16))


def _sigmoid_visit(tile, pictures, texts):
  signed_IT = jnp.where(tile.same_IT, -tile.logits_IT, tile.logits_IT)
  total_I = jnp.sum(jax.nn.softplus(signed_IT) * tile.text['weight'][None], axis=1)
  return {'loss': pictures['loss'] + total_I}, texts


def _sigmoid_slopes(tile):
  signed_IT = jnp.where(tile.same_IT, -jax.nn.sigmoid(-tile.logits_IT), jax.nn.sigmoid(tile.logits_IT))
  return signed_IT * tile.image['slope'][:, None] * tile.text['weight'][None]


def _softmax_visit(tile, pictures, texts):
  return (_with_logits(pictures, tile.logits_IT, tile.same_IT, tile.text['weight']),
          _with_logits(texts, tile.logits_IT.T, tile.same_IT.T, tile.image['weight']))


def _with_logits(sums, logits_IT, same_IT, weight_T):
  """The sums of rows of logits with more columns: the largest, the sum of exponentials relative to it, and of those
  that are the same their number and sum."""
  counts_IT = jnp.broadcast_to(weight_T[None] > 0, logits_IT.shape)
  most_I = jnp.maximum(sums['most'], jnp.max(logits_IT, axis=1, initial=_LEAST, where=counts_IT))
  exponentials_IT = jnp.where(counts_IT, jnp.exp(logits_IT - most_I[:, None]), 0.0) * weight_T[None]
  weight_IT = jnp.where(same_IT, weight_T[None], 0.0)
  return {'most': most_I,
          'total': sums['total'] * jnp.exp(sums['most'] - most_I) + jnp.sum(exponentials_IT, axis=1),
          'number': sums['number'] + jnp.sum(weight_IT, axis=1),
          'same': sums['same'] + jnp.sum(weight_IT * logits_IT, axis=1)}


def _softmax_finish(pictures, texts):
  def one(sums):
    number, total = (jnp.maximum(sums[name], jnp.finfo(jnp.float32).tiny) for name in ('number', 'total'))
    log_total = sums['most'] + jnp.log(total)
    kept = {'log_total': jnp.where(sums['total'] > 0, log_total, 0.0), 'number': number}
    return jnp.where(sums['number'] > 0, log_total - sums['same'] / number, 0.0), kept

  (loss_I, kept_I), (loss_T, kept_T) = one(pictures), one(texts)
  return (loss_I + loss_T) / 2, kept_I, kept_T


def _softmax_slopes(tile):
  def one(own, others, logits, same):
    """By rows: the probability of each column less that which it is to have, as far as the row counts."""
    share = jnp.exp(logits - own['log_total'][:, None]) - jnp.where(same, 1 / own['number'][:, None], 0.0)
    counts = (own['slope'] != 0)[:, None] & (others['weight'] > 0)[None]  # 0 * inf is nan
    return jnp.where(counts, share, 0.0) * own['slope'][:, None] * others['weight'][None]

  return (one(tile.image, tile.text, tile.logits_IT, tile.same_IT)
          + one(tile.text, tile.image, tile.logits_IT.T, tile.same_IT.T).T) / 2


_NOTHING = {'most': _LEAST, 'total': 0.0, 'number': 0.0, 'same': 0.0}
_LOSSES = {
    'sigmoid': _Loss(({'loss': 0.0}, {}), _sigmoid_visit, lambda pictures, texts: (pictures['loss'], {}, {}),
                     _sigmoid_slopes),
    'softmax': _Loss((_NOTHING, _NOTHING), _softmax_visit, _softmax_finish, _softmax_slopes),
}


def _forward(kind, pictures, texts, scale, bias):
  loss = _LOSSES[kind]

  def local(axes, rows, scale, bias):
    sums = [{name: jnp.full(len(side['weight']), value) for name, value in start.items()}
            for side, start in zip(rows, loss.start)]

    def visit(image, text, pictures, texts):
      return loss.visit(_tile(image, text, scale, bias), pictures, texts)

    return loss.finish(*_round(visit, *rows, *_varying(sums, axes), axes))

  rows = pictures, texts
  loss_I, *kept = _by_device(local, spec('batch'), rows, scale, bias)
  return loss_I, (rows, scale, bias, kept)


def _backward(kind, residuals, slope_I):
  rows, scale, bias, kept = residuals
  loss = _LOSSES[kind]

  def local(axes, rows, scale, bias):
    image, text = rows
    zeros = lambda side: {'embedding': jnp.zeros(side['embedding'].shape)}
    scalars = {name: jnp.zeros(len(image['weight'])) for name in ('scale', 'bias')}

    def visit(image, text, pictures, texts):
      tile = _tile(image, text, scale, bias)
      slopes_IT = loss.slopes(tile)
      grown = {'embedding': _product(slopes_IT, text['embedding']),
               'scale': jnp.sum(slopes_IT * tile.products_IT, axis=1), 'bias': jnp.sum(slopes_IT, axis=1)}
      return (jax.tree.map(jnp.add, pictures, grown),
              {'embedding': texts['embedding'] + _product(slopes_IT.T, image['embedding'])})

    sums = _varying((zeros(image) | scalars, zeros(text)), axes)
    pictures, texts = _round(visit, image, text, *sums, axes)
    both = {name: jnp.sum(pictures[name]) for name in scalars}
    both = jax.lax.psum(both, axes) if axes else both
    return scale * pictures['embedding'], scale * texts['embedding'], both

  slopes = {'slope': slope_I}, {'slope': slope_I} if loss.start[1] else {}  # of a loss of texts too
  by_rows = spec('batch')
  *embeddings, both = _by_device(local, (by_rows, by_rows, PartitionSpec()), tuple(
      side | slope | own for side, slope, own in zip(rows, slopes, kept)), scale, bias)
  sides = [{'embedding': slope, 'caption': None, 'weight': jnp.zeros_like(side['weight'])}
           for slope, side in zip(embeddings, rows)]
  return *sides, both['scale'], both['bias']


loss_among.defvjp(_forward, _backward)


def _by_device(local, out_specs, rows, scale, bias):
  """`local(axes, rows, scale, bias)` on each device with its rows of the batch; `axes` are those of the ring."""
  if not by_compiler():
    return local((), rows, scale, bias)
  return jax.shard_map(functools.partial(local, mesh_axes('batch')), out_specs=out_specs,
                       in_specs=(spec('batch'), PartitionSpec(), PartitionSpec()))(rows, scale, bias)


def _varying(tree, axes):
  """Arrays that are alike on all devices, as ones that may come to differ."""
  return jax.tree.map(lambda x: jax.lax.pcast(x, axes, to='varying'), tree) if axes else tree


def _product(a, b):
  """A product of matrices in float32, whatever the device's default is."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _tile(image, text, scale, bias):
  products_IT = _product(image['embedding'], text['embedding'].T)
  (a_I, b_I), (a_T, b_T) = image['caption'].T, text['caption'].T
  same_IT = (a_I[:, None] == a_T[None]) & (b_I[:, None] == b_T[None])
  return Tile(image, text, products_IT, scale * products_IT + bias, same_IT)


def _round(visit: Callable, image: Any, text: Any, pictures: Any, texts: Any, axes: tuple[str, ...]) -> tuple[Any, Any]:
  """(sums of the pictures, sums of the texts) after each picture here has met each text of all devices.

  Args:
    visit: (image, text, sums of the pictures, sums of the texts) -> both sums, of one tile.
    image, text: what is known of each, with a leading axis [n].
    pictures, texts: their sums at the start, with a leading axis [n].
    axes: the mesh axes of the ring; none: there is one device.
  """
  counts = len(image['weight']), len(text['weight'])
  image, text, pictures, texts = map(_in_tiles, (image, text, pictures, texts))

  def some_texts(pictures, those):
    text, texts = those

    def some_pictures(texts, those):
      image, pictures = those
      pictures, texts = visit(image, text, pictures, texts)
      return texts, pictures

    texts, pictures = jax.lax.scan(some_pictures, texts, (image, pictures))
    return pictures, texts

  def hop(carry, _):
    pictures, text, texts = carry
    pictures, texts = jax.lax.scan(some_texts, pictures, (text, texts))
    return (pictures, *_passed_on((text, texts), axes)), None

  mesh = jax.sharding.get_abstract_mesh()
  hops = math.prod(mesh.shape[axis] for axis in axes)
  pictures, _, texts = jax.lax.scan(hop, (pictures, text, texts), length=hops)[0]
  return tuple(jax.tree.map(lambda x, count=count: x.reshape(-1, *x.shape[2:])[:count], tree)
               for tree, count in zip((pictures, texts), counts))


def _in_tiles(tree):
  """Arrays [n, ..] as [tiles, n / tiles, ..]. What is padded has no weight."""

  def one(x):
    tiles = -(-len(x) // TILE)
    size = -(-len(x) // tiles)
    padded = jnp.pad(x, [(0, tiles * size - len(x))] + [(0, 0)] * (x.ndim - 1)) if tiles * size > len(x) else x
    return padded.reshape(tiles, size, *x.shape[1:])

  return jax.tree.map(one, tree)


def _passed_on(tree, axes):
  """What each device holds, on the next one of the ring."""
  if not axes:
    return tree
  mesh = jax.sharding.get_abstract_mesh()
  count = math.prod(mesh.shape[axis] for axis in axes)
  ring = [(i, (i + 1) % count) for i in range(count)]
  return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, ring), tree)
