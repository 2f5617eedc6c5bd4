"""Pictures described in words: the model writes the caption of a picture, or the answer to a question about it.

One encoder, the family's own, reads the text and the picture (a prefix language model: Raffel et al. 2020, sec. 3.2.1;
on pictures: Wang et al. 2022, SimVLM). The picture and the question see each other whole. A token of the answer sees
both and the tokens before it, and the next one is predicted. Without a question the picture sees only itself: its
tokens are those that the same model without text would compute.

With `parallel` a share of the training examples has all tokens of the answer predicted at once, from blanks (CapPa:
Tschannen et al. 2023, sec. 3.2). In evaluation and use it is always one after another.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from vit_jax import models
from vit_jax.data import text as text_lib
from vit_jax.errors import UserError
from vit_jax.interop import sources
from vit_jax.layers import kernels, noise
from vit_jax.models.words import Words, attending
from vit_jax.objectives.objective import Metric, Objective
from vit_jax.options import option
from vit_jax.transfer.pretrained import Whole


@dataclasses.dataclass(frozen=True)
class Config:
  """How the text is predicted."""
  parallel: float = option(0.0, below=1)  # share of the training examples that are predicted at once; CapPa has 0.75
  tied: bool = False  # logits are products with the table of tokens, and no map of their own
  blind: bool = False  # pictures are hidden: what can be told without them, beside which answers are to be judged
  # Rows of the table of tokens; None: as many as the tokenizer has.
  vocab_size: int | None = option(None, least=2, most=2**24)

  @classmethod
  def of_weights(cls, path: str, ignore: tuple[str, ...]) -> Whole | None:
    """All of a run of this objective; None of other weights, or if the words are to be new."""
    from vit_jax.objectives import whole_runs  # which builds on this module
    return None if 'words/*' in ignore or not sources.is_run(path) else whole_runs.read(
        path, 'caption', 'words/table', lambda options, rows: dataclasses.replace(options, vocab_size=rows))


@dataclasses.dataclass(frozen=True)
class Caption(Objective):
  """The tokens of the answer, which is the whole caption where there is no question.

  The loss of an example is the mean over its tokens, the end among them, in nats: every example counts once, whatever
  its length. 'bits_per_byte' and 'accuracy' are of all tokens alike: sums over the examples, divided at the end.
  'exact' is the share of examples of which all tokens are the likeliest: the model would write them to the letter,
  taking the likeliest token at each step.
  """
  text: text_lib.TextConfig = text_lib.TextConfig()

  Config: ClassVar[type] = Config
  metrics = {'loss': Metric(), 'bits_per_byte': Metric(), 'accuracy': Metric(higher_is_better=True, share=True),
             'exact': Metric(higher_is_better=True, share=True, shown=False)}
  values = ('loss', 'nats', 'answer_bytes', 'correct', 'tokens', 'exact')
  masked = True
  use = '--caption'

  @classmethod
  def of(cls, config):
    return cls(config.loss, config.data.text)

  def check(self, config):
    super().check(config)
    if models.family(config.family).tokens is None:
      raise UserError(f'family={config.family}: objective=caption adds tokens to those of a transformer: for '
                      f'{models.that_have("tokens")}')
    whys = {'pos_embed': (('rope2d', 'rope2d_centred', 'relative'), 'has no places for text; set learned or sincos2d'),
            'attention': (('local', 'linear'), 'cannot be masked; set full'),
            'pool': (('map',), 'has parameters that objective=caption does not train; set cls or gap')}
    for name, (values, why) in whys.items():
      if (value := getattr(config.model, name)) in values:
        raise UserError(f'model.{name}={value}: {why}')
    for name, values in {'blocks': ('jit',), 'attention_kernel': ('auto', kernels.PLAIN)}.items():
      if (value := getattr(config.system.execution, name)) not in values:
        raise UserError(f'system.execution.{name}={value}: cannot mask attention, which objective=caption does: set it '
                        f'to {values[0]}')
    if self.text.pad:
      raise UserError(f'data.text.pad={self.text.pad}: objective=caption reads how long a text is, which only a '
                      'padding of 0 tells: set it to 0')
    if self.config.tied and config.parametrisation.name != 'standard':
      raise UserError(f'loss.tied=True: a table that is both input and output has no rule in parametrisation.name='
                      f'{config.parametrisation.name}: set loss.tied to False')

  def for_data(self, data):
    if data.tokenizer.vocab_size > (rows := self.vocab_size()):
      raise UserError(f'loss.vocab_size={rows}: the tokenizer has {data.tokenizer.vocab_size} tokens '
                      f'(data.text.tokenizer={self.text.tokenizer}); give at least so many, or None')
    return self

  def vocab_size(self) -> int:
    """Rows of the table of tokens. Raises UserError if the tokenizer is asked and is not there."""
    return self.config.vocab_size or text_lib.vocab_size(self.text)

  def inputs(self, image_shape):
    one = jax.ShapeDtypeStruct((), jnp.int32)
    return super().inputs(image_shape) | {'text': jax.ShapeDtypeStruct((self.text.length,), jnp.int32),
                                          'answer_start': one, 'answer_bytes': one}

  def build(self, family, config, image_shape, num_classes, *, rngs, execution):
    module = family.model(config, image_shape, 0, rngs=rngs, execution=execution)
    module.words = Words(config.width, self.vocab_size(), self.text.length, rngs=rngs,
                         tied=self.config.tied, blank=self.config.parallel > 0, dtype=config.dtype)
    return module

  def prepare(self, model, batch, augment, keys_B):
    batch = super().prepare(model, batch, augment, keys_B)
    return batch | {'image': jnp.zeros_like(batch['image'])} if self.config.blind else batch

  def forward(self, module, batch, keys_B=None, capture=()):
    """{'logits' [B, N, V]: of each token of the text, from what it may see}."""
    del capture
    at_once_B = None
    if self.config.parallel and keys_B is not None:
      draw = lambda key: jax.random.bernoulli(key, self.config.parallel)
      at_once_B = jax.vmap(draw)(noise.fold(keys_B, module.config.depth + 1))
    x_BTD, reach_BT = self.tokens(module, batch, at_once_B)
    x_BTD = noise.dropout(x_BTD, module.config.dropout, noise.fold(keys_B, module.config.depth))
    length = self.text.length
    x_BTD, _ = module.encoder(x_BTD, keys_B, read=length, attend=attending(reach_BT, length))
    return {'logits': logits(module, x_BTD[:, :length])}

  def tokens(self, module, batch, at_once_B=None) -> tuple[jax.Array, jax.Array]:
    """(what the encoder reads [B, T, D], how many tokens of the text each token sees [B, T]), the text first."""
    text_BN, start_B1 = batch['text'], batch['answer_start'][:, None]
    places_1N = jnp.arange(text_BN.shape[1])[None]
    reach_BN = jnp.maximum(places_1N, start_B1) + 1
    hidden_BN = None
    if at_once_B is not None:
      hidden_BN = at_once_B[:, None] & (places_1N > start_B1)
      reach_BN = jnp.where(at_once_B[:, None] & (places_1N >= start_B1), text_BN.shape[1], reach_BN)
    words_BND = module.words.embed(jnp.pad(text_BN, ((0, 0), (1, 0)))[:, :-1], places_1N, hidden_BN)
    picture_BPD = module.embed(batch['image'])
    asked_B1 = jnp.where(start_B1 > 1, start_B1 + 1, 0)  # after a begin token alone there is no question
    reach_BP = jnp.broadcast_to(asked_B1, picture_BPD.shape[:2])
    return jnp.concatenate([words_BND, picture_BPD], axis=1), jnp.concatenate([reach_BN, reach_BP], axis=1)

  def loss(self, outputs, batch):
    text_BN, logits_BNV = batch['text'], outputs['logits']
    places_1N = jnp.arange(text_BN.shape[1])[None]
    counts_BN = (places_1N >= batch['answer_start'][:, None]) & (places_1N < text_lib.lengths(text_BN)[:, None])
    nats_B = jnp.sum(surprise(logits_BNV, text_BN), axis=1, where=counts_BN)
    tokens_B = jnp.sum(counts_BN, axis=1).astype(jnp.float32)
    correct_B = jnp.sum((jnp.argmax(logits_BNV, axis=-1) == text_BN) & counts_BN, axis=1).astype(jnp.float32)
    return {'loss': nats_B / jnp.maximum(tokens_B, 1), 'nats': nats_B, 'correct': correct_B, 'tokens': tokens_B,
            'answer_bytes': batch['answer_bytes'].astype(jnp.float32), 'exact': correct_B == tokens_B}

  def report(self, means):
    share = lambda part, whole: part / whole if whole else math.nan
    return {'loss': means['loss'], 'bits_per_byte': share(means['nats'] / math.log(2), means['answer_bytes']),
            'accuracy': share(means['correct'], means['tokens']), 'exact': means['exact']}


def logits(module, x_BTD: jax.Array) -> jax.Array:
  """What the encoder gives of text -> logits [B, T, V] in float32."""
  return module.words.logits(x_BTD if module.norm is None else module.norm(x_BTD))


def surprise(logits_BNV: jax.Array, text_BN: jax.Array) -> jax.Array:
  """-log p of each token, [B, N]."""
  chosen_BN1 = jnp.take_along_axis(logits_BNV, text_BN[..., None], axis=-1)
  return jax.nn.logsumexp(logits_BNV, axis=-1) - chosen_BN1[..., 0]


OBJECTIVE = Caption
