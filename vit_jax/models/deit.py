"""DeiT: a ViT with a distillation token, which learns from a teacher (Touvron et al. 2021a, sec. 4).

Beside CLS, a second token passes through the encoder and has a head of its own: CLS's is trained on the labels, this
one's on a teacher's predictions (`transfer.distillation`). At test time the two are averaged.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import UserError, nearest
from vit_jax.layers.dense import Dense, parameter, zeros
from vit_jax.layers.stack import Execution
from vit_jax.models import vit
from vit_jax.models.family import Tokens

SIZES = {name: vit.size(name) for name in ('Ti/16', 'S/16', 'B/16')}  # Touvron et al. 2021a, table 1


@dataclasses.dataclass(frozen=True)
class Config(vit.Config):
  """A DeiT's shape: that of a ViT with a CLS token. `size('S/16')` gives the published ones."""
  pool: Literal['cls'] = 'cls'
  last_norm: Literal['tokens'] = 'tokens'


def size(name: str) -> dict:
  """The fields of a published shape: size('S/16') -> dict(width=384, ..., patch_size=16)."""
  if name not in SIZES:
    raise UserError(f'DeiT {name!r}: no such published size{nearest(name, SIZES)}')
  return dict(SIZES[name])


class DeiT(vit.ViT):
  """Patches -> tokens (+ position, + CLS, + distillation token) -> encoder -> the mean of two heads' logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `vit.check`)."""
    super().__init__(config, image_shape, num_classes, rngs=rngs, execution=execution)
    # Drawn at random, so that it differs from CLS, which starts at zero: deviation 0.02, as in the original code.
    self.distillation = parameter(0.02 * jax.random.normal(rngs.params(), (config.width,)), ('embed',), 'input')
    self.distillation_head = Dense((config.width,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output',
                                   kernel_init=zeros) if num_classes else None

  def _class_tokens(self):
    return [self.cls, self.distillation]

  def _classify(self, x_BTD, sizes_BT):
    """The mean of both heads' logits; their own are 'class_logits' and 'teacher_logits'."""
    del sizes_BT  # neither token is ever merged
    if self.head is None:
      return None, {'pre_logits': x_BTD[:, 0]}
    class_BC = self.head(x_BTD[:, 0].astype(jnp.float32))
    teacher_BC = self.distillation_head(x_BTD[:, 1].astype(jnp.float32))
    return (class_BC + teacher_BC) / 2, {'pre_logits': x_BTD[:, 0], 'class_logits': class_BC,
                                         'teacher_logits': teacher_BC}


def tokens(config: Config, image_shape: tuple[int, int, int]) -> Tokens:
  """What the encoder reads."""
  return Tokens(vit.grid(config, image_shape), classified=2)


FAMILY = dataclasses.replace(vit.FAMILY, config=Config, model=DeiT, sizes=SIZES, tokens=tokens)
