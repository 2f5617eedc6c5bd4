"""Attention of a Vision Transformer: maps of single pictures, and the mean attention distance of each head.

Supported are families in which every token attends to every other token (`models.family.Family.tokens`).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop.classifier import Classifier
from vit_jax.models import PureModel, that_have

_BYTES = 2**28  # of attention weights that are computed at once


@dataclasses.dataclass(frozen=True)
class Attention:
  """Attention on B pictures, whose patches form a grid of h rows and w columns, in L layers of H heads.

  Attributes:
    last: float32 [B, h, w], attention weights of the last layer, averaged over its heads. They sum to 1 over the grid.
      The queries are CLS (and DeiT's distillation token); in a model without CLS, the mean over all patches.
    rollout: float32 [B, h, w], the same for attention rolled out over all layers.
    distance: float32 [L, H], the mean attention distance in pixels, averaged over the pictures.
    even: float, the `distance` of a head that attends to all patches equally.
  """
  last: np.ndarray
  rollout: np.ndarray
  distance: np.ndarray
  even: float


def attention(model: Classifier, prepared: Sequence[np.ndarray]) -> Attention:
  """Computes the attention on `prepared`, pictures uint8 [H, W, C] as `model.prepare` returns them.

  Raises:
    UserError: the model has no global attention.
  """
  check(model)
  grid, depth = _grid(model.model), model.model.config.depth
  tokens = grid[0] * grid[1] + 2
  each = max(1, min(len(prepared), 16, _BYTES // (4 * depth * model.model.config.num_heads * tokens**2)))
  parts = []
  for start in range(0, len(prepared), each):
    images = np.stack(prepared[start:start + each])
    padded = np.pad(images, ((0, each - len(images)), (0, 0), (0, 0), (0, 0)))
    outputs = jax.device_get(_jitted(model.model, model.preprocessing)(model.params, model.stats, padded))
    parts.append([np.asarray(x)[:len(images)] for x in outputs])
  last, rolled, distance = (np.concatenate(part) for part in zip(*parts))
  shape = lambda x: x.reshape(-1, *grid)
  return Attention(shape(last), shape(rolled), distance.mean(axis=0), float(_distances(model.model).mean()))


def check(model: Classifier) -> None:
  """Raises UserError for a model whose attention is not global, or that has none, before anything is computed."""
  pure = getattr(model, 'model', None)
  if pure is None:
    raise UserError('attention maps look into a model, and an exported file has only its function: give the run or a '
                    'bundle')
  if pure.family.tokens is None:
    raise UserError('attention maps need a model in which every patch attends to every other '
                    f'({that_have("tokens")}); this one is {pure.name}')
  images = np.zeros((1, *pure.image_shape), np.uint8)
  jax.eval_shape(_capture(pure, model.preprocessing), model.params, model.stats, images)


def rollout(weights_LTT: jax.Array) -> jax.Array:
  """Attention rollout [T, T]: the share of each input token (column) in each output token (row).

  It is the product over layers of (weights + identity) / 2, with rows normalised to sum to 1. The identity accounts for
  the residual connection (Abnar & Zuidema 2020, sec. 3). `weights_LTT` are means over heads.
  """
  half = (weights_LTT + jnp.eye(weights_LTT.shape[-1], dtype=weights_LTT.dtype)[None]) / 2
  half = half / half.sum(axis=-1, keepdims=True)
  product = half[0]
  for layer in half[1:]:
    product = layer @ product
  return product


def mean_distance(weights_LHTT: jax.Array, distances_PP: np.ndarray) -> jax.Array:
  """The mean attention distance [L, H] (Dosovitskiy et al. 2021, fig. 7 right and app. D.7).

  It is the distance between query and key patches, weighted by attention and averaged over the queries. Tokens in front
  of the P patches are left out, and the weights of the patches are normalised to sum to 1.
  """
  lead = weights_LHTT.shape[-1] - len(distances_PP)
  weights_LHPP = weights_LHTT[..., lead:, lead:]
  weights_LHPP = weights_LHPP / weights_LHPP.sum(axis=-1, keepdims=True)
  return (weights_LHPP * jnp.asarray(distances_PP)[None, None]).sum(axis=-1).mean(axis=-1)


@functools.lru_cache(maxsize=2)
def _jitted(model: PureModel, prepare: Preprocessing):
  distances_PP = _distances(model)
  patches = len(distances_PP)

  classified = model.family.tokens(model.config, model.image_shape).classified

  def from_class(weights_TT):
    """Weights [P] of the leading tokens that are classified, or the mean over all patches where these are pooled."""
    lead = weights_TT.shape[-1] - patches
    rows = weights_TT[:classified] if classified else weights_TT[lead:]
    seen = rows[:, lead:].mean(axis=0)
    return seen / seen.sum()

  def look(weights_LHTT):
    weights_LTT = weights_LHTT.mean(axis=1)
    return from_class(weights_LTT[-1]), from_class(rollout(weights_LTT)), mean_distance(weights_LHTT, distances_PP)

  capture = _capture(model, prepare)
  return jax.jit(lambda *inputs: jax.vmap(look, in_axes=1)(capture(*inputs).astype(jnp.float32)))


def _capture(model, prepare):
  """Returns a function (params, stats, images uint8) -> attention weights [L, B, H, T, T]."""
  def capture(params, stats, images):
    return model.apply(params, stats, prepare.normalize(images), capture=('attention',))[1]['attention']
  return capture


def _grid(model):
  return model.family.tokens(model.config, model.image_shape).grid


def _distances(model) -> np.ndarray:
  """Distances float32 [P, P] between the centres of patches, in pixels."""
  places = np.stack(np.meshgrid(*map(np.arange, _grid(model)), indexing='ij'), axis=-1).reshape(-1, 2)
  apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
  return (apart * model.config.patch_size).astype(np.float32)
