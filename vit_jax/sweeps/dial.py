"""One dial: the depth of a ViT sets its shape, length, batch, learning rate and weight decay, by rules and a law.

- Width: 64 x depth, the aspect ratio of ViT-B. The loss hardly depends on it (Kaplan et al. 2020, arXiv 2001.08361,
  section 3.1). Heads are 64 wide and the MLP 4 times the width (Dosovitskiy et al. 2021, table 1).
- Length: D*(N), at which the model is compute-optimal, by the law.json of a law of params and examples.
- Batch: as D^0.383, to the nearest power of two (Bergsma et al. 2025, arXiv 2505.13738).
- Learning rate: that of a tuned run at its width and depth, which muP carries to others
  (`optimisation.parametrisation`), times sqrt(batch) (Malladi et al. 2022, arXiv 2205.10287) and D^-0.32 (Bjorck et al.
  2024, arXiv 2409.19913). Or by a law of tuned rates, such as --form='c * N^-a * D^b' --metric=learning_rate fits.
- Weight decay: 1 / (rate x decay) is the same share of all steps (Wang and Aitchison 2024, arXiv 2405.13698).
- Warm-up: the same share of all steps.

The exponents of batch and rate were measured on language models.
"""

import dataclasses
import math

import ml_collections

from vit_jax.errors import UserError, nearest
from vit_jax.scaling import law_file
from vit_jax.sweeps import next_run

ASPECT, HEAD, MLP = 64, 64, 4
BATCH_BY_EXAMPLES, RATE_BY_EXAMPLES = 0.383, -0.32
DEEPEST = 128
KEYS = ('depth', 'law', 'rates')


@dataclasses.dataclass(frozen=True)
class Reference:
  """The tuned run that batch, rate, decay and warm-up are scaled from.

  Attributes:
    width, depth: its shape.
    examples: its length.
    batch_size: its batch.
    learning_rate: its peak rate.
    timescale: 1 / (learning rate x weight decay) in steps, as a share of all steps.
    warmup: the share of the steps that are warm-up.
  """
  width: int
  depth: int
  examples: float
  batch_size: int
  learning_rate: float
  timescale: float
  warmup: float


def turn(c: ml_collections.ConfigDict, arg: str, reference: Reference, law: str) -> None:
  """Sets what the dial says on a recipe of a ViT, in place.

  Args:
    c: the recipe, which says all else: patches, data, schedule. It names its pictures' size and classes, so that
      parameters can be counted without the data.
    arg: the recipe's ARG, such as `depth=8` or `depth=8,law=runs/law/law.json,rates=runs/rates/law.json`.
    reference: the tuned run.
    law: the law.json where `arg` names none.

  Raises:
    UserError: an item of another kind, a depth that is no number from 1 to DEEPEST, or see `law_file`.
  """
  given = _parse(arg)
  depth, sizes = _depth(arg, given), law_file.read(given.get('law', law))
  c.model.depth, c.model.width, c.model.num_heads = depth, ASPECT * depth, ASPECT * depth // HEAD
  c.model.mlp_dim = MLP * c.model.width
  params = next_run.Sizes(c.to_dict(), 'params').params({})
  examples = law_file.optimal_examples(sizes, params)
  longer = examples / reference.examples
  c.data.batch_size = 2 ** max(0, round(math.log2(reference.batch_size * longer ** BATCH_BY_EXAMPLES)))
  steps = max(1, round(examples / c.data.batch_size))
  c.train.examples = steps * c.data.batch_size
  c.schedule.warmup_steps = round(reference.warmup * steps)
  if 'rates' in given:
    rate = law_file.value(law_file.read(given['rates']), params, examples)
  else:
    rate = reference.learning_rate * (c.data.batch_size / reference.batch_size) ** 0.5 * longer ** RATE_BY_EXAMPLES
    c.parametrisation.name = 'mup'
    c.parametrisation.base_width, c.parametrisation.base_depth = reference.width, reference.depth
  c.optimizer.learning_rate = float(f'{rate:.3g}')
  c.optimizer.weight_decay = float(f'{1 / (c.optimizer.learning_rate * reference.timescale * steps):.3g}')


def _parse(arg):
  """{key: text} of `depth=8,law=FILE`."""
  out = {}
  for item in arg.split(','):
    key, equals, value = (part.strip() for part in item.partition('='))
    if not (equals and value) or key in out:
      raise UserError(f'{arg!r}: expected depth=NUMBER[,law=FILE][,rates=FILE], such as depth=8, got {item!r}')
    if key not in KEYS:
      raise UserError(f'{arg!r}: unknown {key!r}{nearest(key, KEYS)}')
    out[key] = value
  return out


def _depth(arg, given):
  text = given.get('depth', '')
  if not (text.isascii() and text.isdigit() and 1 <= int(text) <= DEEPEST):
    raise UserError(f'{arg!r}: expected depth=NUMBER from 1 to {DEEPEST}, such as depth=8, got depth={text}')
  return int(text)
