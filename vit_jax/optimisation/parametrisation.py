"""Parametrisations: how initial values and the optimizer's settings depend on a model's width and depth.

'standard' uses every parameter as its module makes it. 'mup' is the maximal update parametrisation (Yang et al. 2022,
"Tensor Programs V", table 8) with the depth rule of CompleteP (Dey et al. 2025, "Don't be lazy", table 1, alpha = 1):
the learning rate and weight decay that are best at the base width and depth are close to the best at all others. At the
base, both parametrisations are the same bit for bit.

With m = width / base_width and l = depth / base_depth, the papers' rules are, relative to the base:

                          multiplier  initial std   AdamW: lr   epsilon      SGD: lr
  input kernel            1           1             1           1/m          m
  hidden kernel           1           1/sqrt(m)     1/m         1/m          1
  output kernel           1/m         1             1           1/m          m
  biases, norms, scales   1           1             1           1/m          m       (the logits' bias: 1, 1, 1)
  embeddings, CLS token   1           1             1           1/m          m
  in a residual block     -           -             x 1         x 1/l        x l     (of each of the above)
  end of a residual block x 1/l       -             -           -            -

The papers put the multipliers into the forward pass; here they are not. Training w = s v with a multiplier s on v is
exactly the same as training w with initial values, learning rate and epsilon multiplied by s, s and 1/s (AdamW) or s,
s^2 (SGD): the abc-symmetry (Yang & Hu 2021, "Tensor Programs IV", sec. 4). So a trained model is an ordinary one, and
evaluation, prediction, conversion and checkpoints do not depend on this file.

Choices that the papers leave open:
- The learning rate times the weight decay is the relative shrinkage of a kernel in a step. It is the same at every size
  (as in table 1 of CompleteP for hidden kernels): the factor of the weight decay is the inverse of the learning rate's.
  Parameters that do not decay in the standard parametrisation (all but kernels) do not decay here either.
- A zero-initialised head stays zero, as Yang et al. advise (app. D.2); its learning rate is what matters.
- Heads keep their size K and grow in number, as in the published ViTs, so 1/sqrt(K) is a constant. For a ladder with
  growing heads, `model.base_head_dim` scales logits as 1/K (def. 4.1). It is a field of the model, as it changes what
  the model computes.
- Which ends of a map grow follows from the shapes, which are compared with those of a model of twice the width. What
  does not grow, such as the convolutions of a ResNet stem, keeps the factors of the base, 1. mlp_dim is assumed to be
  proportional to the width; set `base_mlp_dim` if the base has another proportion.
- The layers counted in l are those of the stacks (the `layers` axis).
- CompleteP is for AdamW. With SGD, the gradient of a block falls as 1/l and L updates add up, hence the factor l
  (Bordelon et al. 2024, "Infinite limits of multi-head transformer dynamics", where it is L^(2 alpha - 1)).
- `clip_norm` bounds sqrt(sum of lr factor x gradient^2), which is the same at every width, while the norm of the
  gradient grows with the width. Its square is the first-order decrease of the loss in a step of SGD at learning rate 1.
"""

import dataclasses
import math
from typing import Literal

import jax

from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.options import option

OPTIMIZERS = ('adamw', 'sgd')


@dataclasses.dataclass(frozen=True)
class ParametrisationConfig:
  """The parametrisation and its base."""
  name: Literal['standard', 'mup'] = 'standard'
  # 'mup': the model.width at which it equals 'standard'; None: this model's width.
  base_width: int | None = option(None, least=1, most=2**17)
  # 'mup': the model.depth at which it equals 'standard'; None: this model's depth.
  base_depth: int | None = option(None, least=1, most=4096)
  # 'mup': the model.mlp_dim of the base; None: proportional to its width.
  base_mlp_dim: int | None = option(None, least=1, most=2**19)


@dataclasses.dataclass(frozen=True)
class Factors:
  """The factors of one parameter."""
  init: float  # of the initial value
  learning_rate: float
  weight_decay: float
  epsilon: float  # of AdamW


def factors(config: ParametrisationConfig, optimizer: str, model: PureModel) -> dict | None:
  """The factors of each parameter, in a dict like that of the parameters with `Factors` as leaves; None: all 1.

  Raises:
    UserError: a base is not used, the family has no width or depth, or there are no rules for the optimizer.
  """
  if config.name == 'standard':
    for name in ('base_width', 'base_depth', 'base_mlp_dim'):
      if getattr(config, name) is not None:
        raise UserError(f'parametrisation.{name}={getattr(config, name)}: only parametrisation.name=mup reads it')
    return None
  if optimizer not in OPTIMIZERS:
    raise UserError(f'optimizer.name={optimizer!r}: parametrisation.name=mup has rules for {" and ".join(OPTIMIZERS)} '
                    'only')
  if not any(hasattr(model.config, name) for name in ('width', 'depth')):
    raise UserError('parametrisation.name=mup: this model family has neither model.width nor model.depth that could '
                    'grow: set parametrisation.name=standard')
  wider, deeper = _growth(config, model, 'width'), _growth(config, model, 'depth')
  twice = _of_twice_the_width(model, mlp_grows=_mlp_grows(config, model, wider))
  declared = ('fan_in', 'init_power', 'ends_branch', 'out_sharding')
  fan_in, init_power, ends_branch, axes = (model.param_metadata(name) for name in declared)

  def one(shape, wide_shape, fan_in, wide_fan_in, init_power, ends_branch, axes):
    grows_in = wide_fan_in > fan_in
    grows_out = math.prod(wide_shape.shape) * max(fan_in, 1) > math.prod(shape.shape) * max(wide_fan_in, 1)
    power = init_power if grows_in or grows_out else 0.0
    return _mup(wider, deeper if 'layers' in axes else 1.0, optimizer, grows_in, grows_out, power, ends_branch)

  return jax.tree.map(one, model.param_shapes(), twice.param_shapes(), fan_in, twice.param_metadata('fan_in'),
                      init_power, ends_branch, axes)


def initial(params: dict, factors: dict | None) -> dict:
  """Converts initial values of the standard parametrisation to those of this one."""
  return params if factors is None else jax.tree.map(lambda p, f: p * f.init, params, factors)


def _growth(config, model, name):
  """The model's width or depth as a multiple of the base."""
  base, size = getattr(config, f'base_{name}'), getattr(model.config, name, None)
  if base is None and config.base_width is None and config.base_depth is None:
    raise UserError('parametrisation.name=mup: give parametrisation.base_width, parametrisation.base_depth or both: '
                    'the sizes for which the learning rate was chosen')
  if base is not None and size is None:
    raise UserError(f'parametrisation.base_{name}={base}: this model family has no model.{name}: leave it out')
  return 1.0 if base is None else size / base


def _of_twice_the_width(model, mlp_grows):
  """The model with everything that grows with the width twice as large; heads keep their size and grow in number."""
  times = lambda value: tuple(2 * v for v in value) if isinstance(value, tuple) else 2 * value
  names = ('width', 'num_heads', 'mlp_dim') if mlp_grows else ('width', 'num_heads')
  wider = {name: times(getattr(model.config, name)) for name in names if hasattr(model.config, name)}
  return PureModel(model.name, dataclasses.replace(model.config, **wider), model.image_shape, model.num_classes,
                   objective=model.objective)


def _mlp_grows(config, model, wider):
  """Whether mlp_dim grows with the width. Raises UserError where it grows at another rate."""
  if config.base_mlp_dim is None:
    return True
  if not hasattr(model.config, 'mlp_dim'):
    raise UserError(f'parametrisation.base_mlp_dim={config.base_mlp_dim}: this model family has no model.mlp_dim: '
                    'leave it out')
  grown = model.config.mlp_dim / config.base_mlp_dim
  if grown not in (1.0, wider):
    raise UserError(f'model.mlp_dim={model.config.mlp_dim} is {grown:g} times parametrisation.base_mlp_dim='
                    f'{config.base_mlp_dim}, and the width {wider:g} times its base: mlp_dim must grow as the width or '
                    f'stay, so give {config.base_mlp_dim * wider:g} or {config.base_mlp_dim}')
  return grown == wider


def _mup(wider: float, deeper: float, optimizer: str, grows_in: bool, grows_out: bool, init_power: float,
         ends_branch: bool) -> Factors:
  """A row of the table above, with its multiplier folded in; `deeper` is 1 outside residual blocks."""
  multiplier = 1 / deeper if ends_branch else 1.0
  if grows_in and not grows_out:
    multiplier /= wider
  power = -0.5 if grows_in and grows_out else 0.0
  init = wider**(power - init_power) * multiplier
  if optimizer == 'adamw':
    learning_rate = (1 / wider if grows_in and grows_out else 1.0) * multiplier
    epsilon = (1 / wider if grows_in or grows_out else 1.0) / deeper / multiplier
  else:
    learning_rate = (wider if grows_in != grows_out else 1.0) * deeper * multiplier**2
    epsilon = 1.0
  return Factors(init, learning_rate, 1 / learning_rate, epsilon)
