"""Layer-wise learning-rate decay: earlier layers, whose features are more general, learn more slowly.

As in ELECTRA (Clark et al. 2020, appendix A), BEiT (Bao et al. 2022) and MAE (He et al. 2022, table 9): with L blocks,
the head and the last norm learn at the full rate, block l (from 1) at decay^(L + 1 - l), the embeddings at
decay^(L + 1).
"""

import jax
import numpy as np
from flax import traverse_util

from vit_jax.models import PureModel
from vit_jax.optimisation import trainable
from vit_jax.optimisation.optimizer import OptimizerConfig

_LAST = ('norm', 'attention_pool')  # modules that follow the blocks, besides the head
_FIRST = 'patch_embed'  # the first module; a stem of convolutions may have blocks of its own


def rates(config: OptimizerConfig, model: PureModel) -> dict | None:
  """The factors of each parameter's learning rate: float32 arrays that broadcast to the parameters; None: all are 1.

  Those of `optimizer.rates` times those of `optimizer.layer_decay`.

  Raises:
    UserError: a pattern of `optimizer.rates` matches nothing.
  """
  by_name = trainable.scaled(config, 'rates', model)
  by_layer = None if config.layer_decay == 1 else _by_layer(config.layer_decay, model)
  if by_name is None:
    return by_layer
  by_name = jax.tree.map(np.float32, by_name)
  return by_name if by_layer is None else jax.tree.map(np.multiply, by_name, by_layer)


def _by_layer(decay, model):
  """Blocks are counted over all stages; a pair of Swin blocks counts as one."""
  axes, shapes = (traverse_util.flatten_dict(tree) for tree in (model.param_axes(), model.param_shapes()))
  roles = traverse_util.flatten_dict(model.param_roles())
  in_stack = lambda path: 'layers' in axes[path] and path[0] != _FIRST
  depths = {path[:path.index('blocks')]: shapes[path].shape[0] for path in shapes if in_stack(path)}
  first, total = {}, 0  # for each stack, the number of blocks before it
  for stack in sorted(depths):
    first[stack] = total
    total += depths[stack]

  def layer(path):
    if in_stack(path):
      stack = path[:path.index('blocks')]
      return 1 + first[stack] + np.arange(depths[stack])
    if roles[path] == 'output' or path[0] in _LAST:
      return total + 1
    if len(path) > 1 and isinstance(path[1], int):  # a list: one for each stage, or between stages
      return _between(path, shapes, first)
    return 0

  def rate(path, shape):
    exponent = np.asarray(total + 1 - layer(path), np.float32)
    return np.float32(decay)**exponent.reshape(-1, *[1] * (len(shape.shape) - 1))

  return traverse_util.unflatten_dict({path: rate(path, shape) for path, shape in shapes.items()})


def _between(path, shapes, first):
  """The layer of the input of a stage (ConvNeXt's patches, Swin's merges): that of its first block; 0 for the first."""
  stages = sorted({stack[1] for stack in first})
  stage = path[1] + len(stages) - len({other[1] for other in shapes if other[0] == path[0]})
  return 1 + min(count for stack, count in first.items() if stack[1] == stage) if stage else 0
