"""Both towers of a model of pictures and texts in one file that runs without the model code, like `exported`'s.

  image.bin              from jax.export: f({name: float32 array}, uint8 [b, H, W, C]) -> embeddings [b, E]
  text.bin               the same of tokens: f({..}, int32 [b, T]) -> embeddings [b, E], all of unit length
  weights.safetensors    the parameters and statistics of both, by name
  model.json             preprocessing; the loss, its scale and bias; templates; the tokenizer and its length
  tokenizer.json         or another file of the tokenizer, if it has one

A pair's logit is scale x (the product of both embeddings) + bias: with loss=sigmoid its probability is the sigmoid,
with loss=softmax probabilities are the softmax over texts.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export

from vit_jax import schema
from vit_jax.data import cleaning, preprocessing, vocabularies
from vit_jax.data import text as text_lib
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.data.text import Tokenizer
from vit_jax.errors import UserError
from vit_jax.interop import exported, module_check

LOSSES = ('sigmoid', 'softmax')
_MODULES, _TENSORS, _MODEL = {'image': 'image.bin', 'text': 'text.bin'}, 'weights.safetensors', 'model.json'
WITHOUT_FILE = ('bytes', 'clip')  # tokenizers that need none, or that of a package
_TOLERANCE = 1e-2  # of an embedding's length


@dataclasses.dataclass(frozen=True)
class About:
  """What belongs to the towers.

  Attributes:
    loss: of LOSSES.
    scale, bias: of the logits.
    templates: texts about a name, with {} in its place.
    length: tokens of a text.
    tokenizer: bytes, clip, or the name of its file in the archive.
    clean, pad: of `data.text`.
  """
  loss: str
  scale: float
  bias: float
  templates: tuple[str, ...]
  length: int
  tokenizer: str
  clean: cleaning.Kind = 'none'
  pad: int = 0


@dataclasses.dataclass(frozen=True)
class ExportedPairs:
  """Both towers from a file.

  Attributes:
    about: what belongs to them.
    preprocessing: of pictures.
    tokenizer: makes tokens of texts.
    digest: 16 hex digits of modules and weights.
  """
  about: About
  preprocessing: Preprocessing
  tokenizer: Tokenizer
  digest: str
  params: dict[str, np.ndarray]
  modules: Mapping[str, Any]  # jax.export.Exported, by tower
  where: str

  def embed(self, tower: str, rows: np.ndarray) -> np.ndarray:
    """Embeddings [B, E] by 'image' of uint8 [B, H, W, C], or by 'text' of int32 [B, T].

    Raises:
      UserError: the module does not return vectors of unit length.
    """
    out = np.asarray(self._compiled[tower](rows))
    lengths = np.linalg.norm(out, axis=-1)
    if not (np.abs(lengths - 1) < _TOLERANCE).all():
      raise UserError(f'{self.where}: {_MODULES[tower]} returns vectors of lengths {lengths.min():.4g} to '
                      f'{lengths.max():.4g}; expected 1. Export the model again')
    return out

  @functools.cached_property
  def _compiled(self):
    params = jax.device_put(self.params)
    return {tower: functools.partial(jax.jit(module.call), params) for tower, module in self.modules.items()}


def write(path: str | os.PathLike, arrays: Any, towers: Mapping[str, Callable], image_shape: tuple[int, int, int],
          prepare: Preprocessing, about: About, tokenizer_file: bytes | None) -> None:
  """Exports both towers.

  Args:
    path: the file.
    arrays: a tree of parameters and statistics.
    towers: {'image': f(arrays, uint8 [b, H, W, C]), 'text': f(arrays, int32 [b, T])} -> embeddings of unit length.
    image_shape: (H, W, C).
    prepare: of pictures.
    about: what belongs to the towers.
    tokenizer_file: the content of the file that `about.tokenizer` names, if it is one.
  """
  params, whole = exported.by_name(arrays)
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
  inputs = _inputs(image_shape, about.length)
  entries = {}
  for tower, (shape, dtype) in inputs.items():
    rows = jax.ShapeDtypeStruct(export.symbolic_shape('b, ' + ', '.join(map(str, shape))), dtype)
    forward = lambda params, rows, embed=towers[tower]: embed(whole(params), rows)
    module = export.export(jax.jit(forward), platforms=exported.PLATFORMS)(shapes, rows)
    entries[_MODULES[tower]] = bytes(module.serialize())
  entries |= {_TENSORS: safetensors.numpy.save(params)} | (
      {} if tokenizer_file is None else {about.tokenizer: tokenizer_file})
  fields = {'format': exported.PAIRS, 'preprocessing': schema.plain(prepare)} | dataclasses.asdict(about)
  exported.write_archive(path, entries | {_MODEL: json.dumps(fields, indent=2) + '\n'})


def read(path: str | os.PathLike) -> ExportedPairs:
  """Reads both towers. Raises UserError if the file is damaged, or is not such a file."""
  where = os.fspath(path)
  content = exported.read_archive(where)
  fields = exported.fields_of(content, _MODEL, where, exported.PAIRS)
  with exported.complete(where):
    params = safetensors.numpy.load(content[_TENSORS])
    modules = {tower: export.deserialize(bytearray(content[name])) for tower, name in _MODULES.items()}
  about, prepare = _about(fields, content, where), preprocessing.parse(fields.get('preprocessing') or {}, where)
  widths = set()
  for tower, (shape, dtype) in _inputs((*prepare.size, prepare.channels), about.length).items():
    module_check.check_calls(modules[tower], where)
    widths.add(module_check.check_shapes(modules[tower], params, shape, where, dtype))
  if len(widths) > 1:
    raise UserError(f'{where}: the towers give embeddings of {" and ".join(map(str, sorted(widths)))} numbers; '
                    'expected as many of both. Export the model again')
  hashed = hashlib.sha256(b''.join(content[name] for name in (*_MODULES.values(), _TENSORS)))
  return ExportedPairs(about, prepare, _tokenizer(about, content, where), hashed.hexdigest()[:16], params, modules,
                       where)


def entry_of(tokenizer: str) -> str:
  """The name in the archive of a tokenizer's file, by config.data.text.tokenizer; that itself if it needs no file."""
  if tokenizer in WITHOUT_FILE:
    return tokenizer
  named = {'.json': 'tokenizer.json', '.model': 'spiece.model'}
  return 'tokenizer.json' if tokenizer == 'bpe' else named.get(
      pathlib.PurePath(tokenizer).suffix, pathlib.PurePath(tokenizer).name)


def _inputs(image_shape: Sequence[int], length: int) -> dict[str, tuple[tuple[int, ...], Any]]:
  """{tower: (shape of a row, dtype)}."""
  return {'image': (tuple(image_shape), np.uint8), 'text': ((length,), np.int32)}


def _about(fields, content, where):
  """`About` of a file from anywhere."""
  loss, templates, name = fields.get('loss'), fields.get('templates'), fields.get('tokenizer')
  scale, bias, length = (fields.get(key) for key in ('scale', 'bias', 'length'))
  clean, pad = fields.get('clean', About.clean), fields.get('pad', About.pad)  # absent from older files
  number = lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
  wrong = [key for key, fine in {
      'loss': loss in LOSSES, 'scale': number(scale), 'bias': number(bias),
      'templates': isinstance(templates, list) and templates and all(isinstance(t, str) and '{}' in t
                                                                     for t in templates),
      'length': isinstance(length, int) and not isinstance(length, bool) and length > 1,
      'clean': isinstance(clean, str) and clean in cleaning.CLEAN,
      'pad': isinstance(pad, int) and not isinstance(pad, bool) and 0 <= pad < 2**24,
      'tokenizer': isinstance(name, str) and (name in WITHOUT_FILE or name in content)}.items() if not fine]
  if wrong:
    raise UserError(f'{where}: {wrong[0]} in its {_MODEL} is {fields.get(wrong[0])!r:.80}, which '
                    'vit_jax.convert does not write. Export the model again')
  return About(loss, float(scale), float(bias), tuple(templates), length, name, clean, pad)


def _tokenizer(about, content, where):
  config = text_lib.TextConfig(about.tokenizer, about.length, clean=about.clean, pad=about.pad)
  if about.tokenizer in WITHOUT_FILE:
    return text_lib.tokenizer(config, list)
  try:
    return vocabularies.of_content(config, content[about.tokenizer])
  except UserError as error:
    raise UserError(f'{where}: {error}') from error
