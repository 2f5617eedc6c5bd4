"""Both towers of another program's model of pictures and texts, as they were read: SigLIP, CLIP, OpenCLIP."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data import cleaning
from vit_jax.data import text as text_lib
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.interop import layer_names, layout
from vit_jax.interop import rules as rules_lib
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.rules import Rule
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights


class Vocabulary(NamedTuple):
  """How texts become tokens.

  Attributes:
    file: of the tokenizer; None: CLIP's, which other programs' files may lack.
    pad: the name of the token after the end; '' for 0.
    clean: how a text is prepared for the tokenizer.
  """
  file: str | None
  pad: str
  clean: cleaning.Kind


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A model of two towers.

  Attributes:
    image: the image tower.
    loss: fields of `objectives.contrast.Config`.
    length: tokens of a text.
    vocabulary: how texts become tokens.
    tensors: those of the text tower and of the projections, and the numbers.
    rules: their names.
    numbers: {our parameter: the name of the tensor} of scale and bias.
  """
  image: Weights
  loss: dict[str, Any]
  length: int
  vocabulary: Vocabulary
  tensors: Tensors
  rules: Sequence[Rule]
  numbers: Mapping[str, str]

  def params(self, like: dict) -> dict:
    """The parameters of the whole model, whose shapes are `like`. Raises UserError for tensors that do not fit."""
    ours = {name: tree for name, tree in like.items() if name in ('text', 'projection')}
    bound = rules_lib.bind(self.rules, layer_names.flat_shapes(ours))
    layout.check_names(only(self.tensors, lambda name: name not in self.numbers.values()), bound, {}, ())
    flat = rules_lib.read(bound, self.tensors.__getitem__, {})
    return self.image.params | layer_names.stacked(flat.__getitem__, ours) | {
        name: np.asarray(self.tensors[theirs], np.float32).reshape(()) for name, theirs in self.numbers.items()}


  def text(self) -> TextConfig:
    """`config.data.text` of a run with these tokens. Raises UserError if the tokenizer cannot be read."""
    plain = TextConfig(self.vocabulary.file or 'clip', self.length)
    pad = _pad_number(self.vocabulary, text_lib.tokenizer(plain, list).end)
    text = dataclasses.replace(plain, clean=self.vocabulary.clean, pad=pad)
    return dataclasses.replace(text, digest=text_lib.tokenizer(text, list).digest)


def only(tensors: Tensors, wanted: Callable[[str], bool]) -> Tensors:
  """The tensors whose names are wanted."""
  return dataclasses.replace(tensors, shapes={n: shape for n, shape in tensors.shapes.items() if wanted(n)})


def _pad_number(vocabulary: Vocabulary, end: int) -> int:
  """The number of the token that pads texts; `end` is that of the end. Raises UserError if the tokenizer has none."""
  numbers = {'</s>': end, '<pad>': 0}  # of SentencePiece
  if vocabulary.pad and vocabulary.file.endswith('.json'):
    added = tensors_lib.read_json(pathlib.Path(vocabulary.file)).get('added_tokens') or []
    numbers = {entry['content']: entry['id'] for entry in added}
  if not vocabulary.pad:
    return 0
  if vocabulary.pad not in numbers:
    raise UserError(f'{vocabulary.file}: has no token {vocabulary.pad!r}, which pads texts by its '
                    'tokenizer_config.json')
  return numbers[vocabulary.pad]
