"""Whether a model that another program saved computes the same here: equal, refused or wrong."""

import dataclasses
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Hundreds of small models are compiled, and each runs once.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from vit_jax import interop  # noqa: E402
from vit_jax.errors import UserError  # noqa: E402
from vit_jax.interop.weights import Weights  # noqa: E402
from vit_jax.models import PureModel  # noqa: E402

TOLERANCE = 1e-4  # of float32 outputs, relative to the largest if that is above 1


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one model: 'equal', 'refused', 'wrong', or 'not built' by the other program."""
  name: str
  verdict: str
  words: str = ''
  error: float | None = None
  scale: float | None = None


def randomise(model: torch.nn.Module, seed: list[int], damping: float = 1.0) -> torch.nn.Module:
  """The model in evaluation mode, its every parameter and running statistic drawn from the seed.

  With damping, running variances are larger, so that the blocks of a deep network do not amplify rounding.
  """
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if tensor.is_floating_point():
        by = damping if name.endswith('running_var') else 1
        tensor.copy_(torch.from_numpy(_value(rng, name, tuple(tensor.shape))) * by)
  return model.eval()


def _value(rng, name, shape):
  if name.endswith('running_var'):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  value = rng.standard_normal(shape)
  if len(shape) <= 1:
    is_scale = name.endswith(('weight', 'gamma', 'lambda1', 'layer_scale_parameter', 'logit_scale'))
    return np.asarray(is_scale + 0.3 * value, np.float32)
  if 'bias_table' in name:
    return value.astype(np.float32)
  return (1.4 * value / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def ours(weights: Weights, images_BCHW: np.ndarray) -> np.ndarray:
  """Logits [B, C], or pooled features [B, D] of a backbone without a head."""
  model = PureModel(weights.family, weights.config, weights.image_shape, weights.num_classes or 1)
  heads = {key: jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
           for key, tree in model.param_shapes().items() if key not in weights.params}

  def apply(params, stats, images):
    logits_BC, intermediates, _ = model.apply(params, stats, jnp.transpose(images, (0, 2, 3, 1)))
    return intermediates['pre_logits'] if weights.headless else logits_BC
  return np.asarray(jax.jit(apply)(heads | weights.params, weights.stats, images_BCHW))


def compare(name: str, folder: pathlib.Path, images_BCHW: np.ndarray, theirs: np.ndarray) -> Outcome:
  """Imports a folder and compares the outputs on pictures."""
  try:
    weights = interop.read(folder)
  except UserError as error:
    return Outcome(name, 'refused', str(error).replace(f'{folder}/', '').replace(str(folder), '').strip(': '))
  mine = ours(weights, images_BCHW)
  if mine.shape != theirs.shape:
    return Outcome(name, 'wrong', f'shape {mine.shape}, theirs {theirs.shape}')
  error, scale = float(np.abs(mine - theirs).max()), float(np.abs(theirs).max())
  spread = float(theirs.std(axis=0).max())
  if not spread > 10 * TOLERANCE * max(1, scale):
    return Outcome(name, 'not built', f'outputs that do not depend on the picture ({spread:.1e})', error, scale)
  return Outcome(name, 'equal' if error <= TOLERANCE * max(1, scale) else 'wrong', '', error, scale)
