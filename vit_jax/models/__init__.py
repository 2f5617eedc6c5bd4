"""The model families, and a model as pure functions of plain trees.

A family is a module with a `Config` dataclass and a class that is built as
`Model(config, image_shape, num_classes, rngs=, execution=)` and called as
`model(images_BHWC, keys_B, capture) -> (logits_BC, intermediates)`; without keys it evaluates.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx, traverse_util

from vit_jax.errors import UserError, nearest
from vit_jax.layers.stack import Execution
from vit_jax.models import convnext, deit, resnet, swin, vit


def _as_they_are(params, config, image_shape, new_shape):
  return params


@dataclasses.dataclass(frozen=True)
class Family:
  """What the rest of the program needs of a model family."""
  config: type  # its frozen config dataclass
  model: Callable[..., nnx.Module]
  # (params, config, image_shape, new_shape) -> params for pictures of another size, numpy arrays both
  resized: Callable[..., dict] = _as_they_are
  batch_norm: bool = False  # an example's training depends on the others of its batch, or micro-batch


FAMILIES = {
    'vit': Family(vit.Config, vit.ViT, vit.resized),
    'deit': Family(deit.Config, deit.DeiT, vit.resized),
    'swin': Family(swin.Config, swin.Swin, swin.resized),
    'resnet': Family(resnet.Config, resnet.ResNet, batch_norm=True),
    'convnext': Family(convnext.Config, convnext.ConvNeXt),
}


def family(name: str) -> Family:
  """The family of that name; UserError with the nearest where there is none."""
  if name not in FAMILIES:
    raise UserError(f'family={name!r}: no such model family{nearest(name, FAMILIES)}')
  return FAMILIES[name]


class PureModel:
  """A Flax module as pure functions: parameters and statistics are nested plain dicts of arrays.

  NNX stops here: everything that is jitted, sharded, saved or packed is a plain tree.
  """

  def __init__(self, name: str, config: Any, image_shape: tuple[int, int, int], num_classes: int,
               execution: Execution = Execution()):
    """Raises UserError for shapes that the family refuses. No memory is used: shapes only."""
    if execution.attention_kernel != 'none' and not isinstance(config, vit.Config):
      raise UserError(f'system.execution.attention_kernel={execution.attention_kernel} is for vit and deit, not for '
                      f'{name}: set it to none')
    self._module = name, config, tuple(image_shape), num_classes, execution
    self.graphdef, self._params, self._stats = _shapes(*self._module)
    self.family, self.config, self.image_shape, self.num_classes = name, config, image_shape, num_classes

  def init(self, key: jax.Array) -> tuple[dict, dict]:
    """(params, stats) drawn from a PRNG key."""
    _, params, stats = _split(_build(*self._module, nnx.Rngs(params=key)))
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

  def apply(self, params: dict, stats: dict, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
            capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict, dict]:
    """(logits [B, C], intermediates, stats); see the family's __call__. With keys, the stats are those of this batch.

    It is the training step that averages them (`optimisation.optimizer.moving_average`).
    """
    module = self.module(params, stats)
    logits_BC, intermediates = module(images_BHWC, keys_B, capture)
    return logits_BC, intermediates, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

  def module(self, params: dict, stats: dict) -> nnx.Module:
    """The Flax module with these arrays in it."""
    return nnx.merge(self.graphdef, _filled(self._params, params), _filled(self._stats, stats))

  def param_shapes(self) -> dict:
    """ShapeDtypeStructs of the parameters, as a nested plain dict."""
    return nnx.to_pure_dict(self._params)

  def stats_shapes(self) -> dict:
    """ShapeDtypeStructs of the statistics; an empty dict for families without."""
    return nnx.to_pure_dict(self._stats)

  def param_axes(self) -> dict:
    """The logical axis names of each parameter: the same nested dict with tuples of names."""
    return self.param_metadata('out_sharding')

  def param_roles(self) -> dict:
    """'input', 'hidden' or 'output' of each parameter: the same nested dict."""
    return self.param_metadata('role')

  def param_metadata(self, name: str) -> dict:
    """What each parameter declares under that name (see `layers.dense.parameter`): the same nested dict."""
    flat = {path: variable.get_metadata(name) for path, variable in nnx.to_flat_state(self._params)}
    return traverse_util.unflatten_dict(flat)


def _build(name, config, image_shape, num_classes, execution, rngs):
  return family(name).model(config, image_shape, num_classes, rngs=rngs, execution=execution)


def _split(module):
  return nnx.split(module, nnx.Param, nnx.BatchStat)


@functools.lru_cache
def _shapes(*module):
  """(graph, parameters, statistics) without values. Tracing takes a quarter of a second, and a program asks often."""
  return _split(nnx.eval_shape(lambda: _build(*module, nnx.Rngs(0))))


def _filled(state, values):
  state = jax.tree.map(lambda x: x, state)
  nnx.replace_by_pure_dict(state, values)
  return state
