"""A model in one file that runs without the model code: StableHLO from jax.export, for any batch size.

The file is an uncompressed zip archive:

  module.bin             from jax.export: f({name: float32 array}, uint8 [b, H, W, C]) -> probabilities [b, classes]
  weights.safetensors    the parameters and statistics, by name
  model.json             preprocessing, class names

It runs on CPU, CUDA and TPU. JAX guarantees to read it for six months. A file is not trusted: before its module is
compiled, `module_check` looks for calls that leave it; after it has run, its outputs must be probabilities.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export

from vit_jax import durable, schema
from vit_jax.data import preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import classifier, module_check
from vit_jax.interop.classifier import Classifier, as_probabilities

SUFFIX = '.stablehlo'
PLATFORMS = ('cpu', 'cuda', 'tpu')
_TOLERANCE = 1e-2  # of probabilities, and of their sum
_FORMAT, PAIRS = 'vit_jax export 1', 'vit_jax export of pairs 1'  # the latter: `exported_pairs`
_MODULE, _TENSORS, _MODEL = 'module.bin', 'weights.safetensors', 'model.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported(Classifier):
  """An exported model."""
  params: dict[str, np.ndarray]
  module: Any  # jax.export.Exported
  where: str = 'the exported model'

  def probabilities(self, prepared: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """As of every Classifier. Raises UserError if the module does not return probabilities."""
    out = super().probabilities(prepared, batch_size)
    if not np.isfinite(out).all():
      raise UserError(f'{self.where}: {np.count_nonzero(~np.isfinite(out)):,} of {out.size:,} outputs are NaN or '
                      'infinite; expected probabilities. Export the model again')
    if self.several_labels:
      if out.size and (out.min() < -_TOLERANCE or out.max() > 1 + _TOLERANCE):
        raise UserError(f'{self.where}: outputs from {out.min():.4g} to {out.max():.4g}; expected probabilities, from '
                        '0 to 1. Export the model again')
    elif out.size and (out.min() < -_TOLERANCE or np.abs(out.sum(axis=1) - 1).max() > _TOLERANCE):
      raise UserError(f'{self.where}: outputs from {out.min():.4g} to {out.max():.4g} whose sums are '
                      f'{out.sum(axis=1).min():.4g} to {out.sum(axis=1).max():.4g}; expected probabilities, from 0 to '
                      '1, with a sum of 1. Export the model again')
    return out

  def forward(self, images_BHWC):
    return self._compiled(images_BHWC)

  @functools.cached_property
  def _compiled(self):
    return functools.partial(jax.jit(self.module.call), jax.device_put(self.params))


def is_exported(path: str | os.PathLike) -> bool:
  """Whether a path names an exported model, judged by its suffix."""
  return os.fspath(path).endswith(SUFFIX)


def write(weights, path: str | os.PathLike) -> None:
  """Exports a model (`weights.Weights`). Raises UserError if it has no head."""
  model, prepare = weights.pure_model(), weights.preprocessing
  params, whole = by_name((weights.params, weights.stats))

  def forward(params, images_BHWC):
    logits_BC, _, _ = model.apply(*whole(params), prepare.normalize(images_BHWC))
    return as_probabilities(logits_BC, weights.several_labels, weights.temperature)

  batch = export.symbolic_shape('b, ' + ', '.join(map(str, weights.image_shape)))
  module = export.export(jax.jit(forward), platforms=PLATFORMS)(
      jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params), jax.ShapeDtypeStruct(batch, np.uint8))
  metadata = {'format': _FORMAT, 'preprocessing': schema.plain(prepare), 'class_names': weights.names(),
              **({'several_labels': True} if weights.several_labels else {}),
              **({'temperature': weights.temperature} if weights.temperature != 1 else {})}
  write_archive(path, {_MODULE: bytes(module.serialize()), _TENSORS: safetensors.numpy.save(params),
                       _MODEL: json.dumps(metadata, indent=2) + '\n'})


def by_name(tree: Any) -> tuple[dict[str, np.ndarray], Callable[[dict], Any]]:
  """({name: array} of a tree, the function that makes such a tree again)."""
  leaves, treedef = jax.tree.flatten_with_path(tree)
  params = {jax.tree_util.keystr(keys, simple=True, separator='/'): np.asarray(leaf) for keys, leaf in leaves}
  order = list(params)
  return params, lambda named: jax.tree.unflatten(treedef, [named[name] for name in order])


def write_archive(path: str | os.PathLike, entries: Mapping[str, bytes | str]) -> None:
  """Writes a file of these entries, in their order: uncompressed."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  with zipfile.ZipFile(temporary, 'w') as archive:
    for name, content in entries.items():
      archive.writestr(name, content)
  durable.replace(temporary, path)


def read_archive(where: str) -> dict[str, bytes]:
  """{name: content} of a file of `write_archive`. Raises UserError if it is damaged, or compressed."""
  with complete(where), zipfile.ZipFile(where) as archive:
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
      raise UserError(f'{where}: expected an uncompressed archive, as `vit_jax.convert --to=stablehlo` writes it, got '
                      'a compressed one')
    return {name: archive.read(name) for name in archive.namelist()}


def fields_of(content: Mapping[str, bytes], entry: str, where: str, wanted: str) -> dict[str, Any]:
  """The fields of model.json. Raises UserError if they are of another format than the wanted one."""
  with complete(where):
    fields = json.loads(content[entry])
    got = fields.get('format')
  if got != wanted:
    why = {_FORMAT: '. It is a classifier, which has names of its own',
           PAIRS: '. It has two towers: give names, as --names=\'a cat,a dog\', or use vit_jax.search'}
    raise UserError(f'{where}: format: expected {wanted!r}, got {got!r}{why.get(got, "")}')
  return fields


@contextlib.contextmanager
def complete(where: str):
  """Says of a file that cannot be read that it is not complete; a UserError passes as it is."""
  try:
    yield
  except UserError:
    raise
  except FileNotFoundError as error:
    raise UserError(f'{where}: no such file') from error
  except Exception as error:  # the exceptions of deserialization are not documented
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{where}: not a complete exported model ({reason[:120]}); was the file truncated?') from error


def read(path: str | os.PathLike) -> Exported:
  """Reads an exported model. Raises UserError if the file is damaged or is not an exported model."""
  where = os.fspath(path)
  content = read_archive(where)
  metadata = fields_of(content, _MODEL, where, _FORMAT)
  with complete(where):
    params = safetensors.numpy.load(content[_TENSORS])
    module = export.deserialize(bytearray(content[_MODULE]))
    module_check.check_calls(module, where)
  prepare = preprocessing.parse(metadata.get('preprocessing') or {}, where)
  names = metadata.get('class_names')
  classes = module_check.check_shapes(module, params, (*prepare.size, prepare.channels), where)
  if not isinstance(names, list) or len(names) != classes:
    raise UserError(f'{where}: class_names: expected a list of {classes} names')
  return Exported(class_names=tuple(map(str, names)), preprocessing=prepare, params=params, module=module,
                  where=where, several_labels=metadata.get('several_labels') is True,
                  temperature=classifier.temperature(metadata, where))
