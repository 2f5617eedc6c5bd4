"""Pictures and texts brought together: SigLIP (Zhai et al. 2023), CLIP (Radford et al. 2021), LiT (Zhai et al. 2022).

An image tower, which is a model of any family without its classifier, and a text tower give embeddings of unit length.
Training brings those of a pair close and others apart (`objectives.pair_loss`). What comes out tells which of any texts
fits a picture, and the reverse. A tower is frozen by `optimizer.train_only`.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from vit_jax.cost import flops
from vit_jax.data import text as text_lib
from vit_jax.errors import UserError
from vit_jax.layers.dense import Dense, lecun_normal, parameter
from vit_jax.models import text as text_tower
from vit_jax.objectives import pair_scores, zero_shot
from vit_jax.objectives.objective import Metric, Objective
from vit_jax.objectives.pair_loss import caption_hash, loss_among
from vit_jax.options import option
from vit_jax.transfer.pretrained import Whole

_MOST_SCALE = 100.0  # of the softmax loss (Radford et al. 2021, sec. 2.5)


@dataclasses.dataclass(frozen=True)
class Config:
  """The loss and the text tower. Scale and bias are learned from what they are here."""
  name: Literal['sigmoid', 'softmax'] = 'sigmoid'
  scale: float = option(10.0, least=1e-3, most=1e4)  # t of SigLIP; CLIP starts at 1 / 0.07
  bias: float = option(-10.0, least=-1e4, most=1e4)  # b of SigLIP; name=softmax has none
  # Of the embeddings: both towers are projected to it, as in CLIP. None: the text tower is projected to the features of
  # the image tower, as in SigLIP.
  width: int | None = option(None, least=1, most=2**17)
  text: text_tower.Config = text_tower.Config()
  # In evaluation the classes are given by these texts about their names; several are averaged.
  templates: tuple[str, ...] = ('{}',)

  @classmethod
  def of_weights(cls, path: str, ignore: tuple[str, ...]) -> Whole | None:
    """Both towers of given weights; None if they have one alone, or the text tower is to be new (LiT)."""
    from vit_jax.objectives import pair_weights  # which builds on this module
    return None if 'text/*' in ignore else pair_weights.read(path)


class Unprojected(nnx.Module):
  """In the place of a family's classifier: the features themselves."""

  def __call__(self, x_BD: jax.Array) -> jax.Array:
    return x_BD.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Contrast(Objective):
  """Which text belongs to which picture of the batch."""
  text: text_lib.TextConfig = text_lib.TextConfig()

  Config: ClassVar[type] = Config
  metrics = {'loss': Metric(), 'scale': Metric(shown=False)}
  evaluated = pair_scores.METRICS
  evaluators = (zero_shot.scores,)
  whole_batch = True
  use = "--names='a cat,a dog'"

  @classmethod
  def of(cls, config):
    return cls(config.loss, config.data.text)

  def check(self, config):
    super().check(config)
    text_tower.check(self.config.text)
    if config.parametrisation.name != 'standard':
      raise UserError(f'parametrisation.name={config.parametrisation.name}: has rules for one tower, whose width is '
                      'model.width; objective=contrast has two: set it to standard')
    if (decay := config.optimizer.layer_decay) != 1:
      raise UserError(f'optimizer.layer_decay={decay}: counts the layers of one tower, and objective=contrast has two: '
                      'set it to 1, and optimizer.rates')
    if any('{}' not in template for template in self.config.templates) or not self.config.templates:
      raise UserError(f'loss.templates={self.config.templates}: expected texts with {{}} in the place of a name')

  def for_data(self, data):
    if (pad := data.tokenizer.pad) and (pool := self.config.text.pool) in ('gap', 'end'):
      raise UserError(f'data.text.pad={pad}: loss.text.pool={pool} reads how long a text is, which only a padding of 0 '
                      'tells: set it to 0, or the pool to last or map')
    if data.tokenizer.vocab_size > (rows := self.vocab_size()):
      raise UserError(f'loss.text.vocab_size={rows}: the tokenizer has {data.tokenizer.vocab_size} tokens '
                      f'(data.text.tokenizer={self.text.tokenizer}); give at least so many, or None')
    return self

  def evaluates(self, data):
    absent = {f'loss@{size}' for size in pair_scores.CANDIDATES if size > data.size('val')}
    if not zero_shot.has_one_class_each(data):
      absent |= {name for name in self.evaluated if name.startswith('zero_shot')}
    return {name: metric for name, metric in self.evaluated.items() if name not in absent}

  def vocab_size(self) -> int:
    """Rows of the table of tokens. Raises UserError if the tokenizer is asked and is not there."""
    return self.config.text.vocab_size or text_lib.vocab_size(self.text)

  def inputs(self, image_shape):
    return super().inputs(image_shape) | {'text': jax.ShapeDtypeStruct((self.text.length,), jnp.int32)}

  def build(self, family, config, image_shape, num_classes, *, rngs, execution):
    module = family.model(config, image_shape, 1, rngs=rngs, execution=execution)
    features = module.head.in_shape[0]
    for name in ('head', 'distillation_head'):
      if hasattr(module, name):
        setattr(module, name, Unprojected())
    width = self.config.width or features
    module.projection = None if self.config.width is None else Dense(
        (features,), (width,), ('embed', None), rngs=rngs, role='output', kernel_init=lecun_normal, use_bias=False)
    module.text = text_tower.TextTower(
        self.config.text, self.vocab_size(), self.text.length, width, self.config.width is None, rngs=rngs,
        execution=execution, dtype=config.dtype)
    module.log_scale = parameter(jnp.float32(math.log(self.config.scale)), (), 'output')
    module.bias = parameter(jnp.float32(self.config.bias), (), 'output') if self.config.name == 'sigmoid' else None
    return module

  def embed_images(self, module: nnx.Module, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
                   capture: tuple[str, ...] = ()) -> jax.Array:
    """[B, H, W, C], as the family's model takes them -> [B, E] of unit length."""
    features_BD, _ = module(images_BHWC, keys_B, capture)
    return _unit(features_BD if module.projection is None else module.projection(features_BD))

  def embed_texts(self, module: nnx.Module, tokens_BT: jax.Array) -> jax.Array:
    """int32 [B, T] -> [B, E] of unit length."""
    return _unit(module.text(tokens_BT, text_lib.lengths(tokens_BT)))

  def forward(self, module, batch, keys_B=None, capture=()):
    """{'image', 'text': [B, E] of unit length, 'scale', 'bias': [B], alike in all rows}."""
    rows = jnp.ones_like(batch['weight'])
    scale, bias = self.scale_and_bias(module.log_scale[...], None if module.bias is None else module.bias[...])
    return {'image': self.embed_images(module, batch['image'], keys_B, capture),
            'text': self.embed_texts(module, batch['text']), 'scale': rows * scale, 'bias': rows * bias}

  def scale_and_bias(self, log_scale: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """t and b of the logits t x.y + b, from the parameters."""
    if self.config.name == 'softmax':
      return jnp.exp(jnp.minimum(log_scale, math.log(_MOST_SCALE))), jnp.float32(0)
    return jnp.exp(log_scale), bias

  def loss(self, outputs, batch):
    return self.loss_among(outputs, batch, outputs, batch)

  def of_all(self):
    return ('text',) if self.config.name == 'sigmoid' else None

  def loss_among(self, outputs, batch, of_all, whole):
    known = lambda batch: {'caption': caption_hash(batch['text']), 'weight': batch['weight']}
    loss_B = loss_among(self.config.name, {'embedding': outputs['image'], **known(batch)},
                        {'embedding': of_all['text'], **known(whole)}, outputs['scale'][0], outputs['bias'][0])
    return {'loss': loss_B, 'scale': outputs['scale']}

  def kept(self, outputs, batch):
    return outputs | {'caption': caption_hash(batch['text'])}

  def score_split(self, kept):
    return pair_scores.scores(self.config.name, kept) | {'scale': float(kept['scale'][0])}

  def parts(self, model):
    sizes = traverse_util.flatten_dict(model.param_shapes())
    size = lambda belongs: sum(math.prod(shape.shape) for path, shape in sizes.items() if belongs(path[0]))
    image, text = size(lambda top: top not in ('text', 'log_scale', 'bias')), size(lambda top: top == 'text')
    pixels = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, self.text.length), jnp.int32)
    count = lambda fn, *inputs: flops.count(lambda params, stats, *inputs: model.call(
        params, stats, lambda module: fn(module, *inputs))[0], model.param_shapes(), model.stats_shapes(), *inputs)
    of_image = lambda module, images: self.embed_images(module, images, None, ('features',))
    return {'image': (image, count(of_image, pixels)), 'text': (text, count(self.embed_texts, tokens))}


def _unit(x_BE):
  """In float32, of length 1; zero stays zero."""
  x_BE = x_BE.astype(jnp.float32)
  return x_BE * jax.lax.rsqrt(jnp.maximum(jnp.sum(x_BE * x_BE, axis=-1, keepdims=True), np.float32(1e-24)))


OBJECTIVE = Contrast
