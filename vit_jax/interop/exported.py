"""A model as one file that runs without the code that made it: StableHLO by jax.export, for any number of pictures.

The file is a zip archive, not compressed:

  module.bin             by jax.export: f({name: float32 array}, uint8 [b, H, W, C]) -> probabilities [b, classes]
  weights.safetensors    the parameters and statistics, by name
  model.json             preprocessing, class names

It runs on CPUs, CUDA and TPUs, and JAX promises to read it for six months of its releases.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export

from vit_jax import schema
from vit_jax.data import preprocessing
from vit_jax.errors import UserError
from vit_jax.interop.classifier import Classifier

SUFFIX = '.stablehlo'
PLATFORMS = ('cpu', 'cuda', 'tpu')
_FORMAT = 'vit_jax export 1'
_MODULE, _TENSORS, _MODEL = 'module.bin', 'weights.safetensors', 'model.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported(Classifier):
  """An exported model, ready for use."""
  params: dict[str, np.ndarray]
  module: Any  # jax.export.Exported

  def forward(self, images_BHWC):
    return self._compiled(images_BHWC)

  @functools.cached_property
  def _compiled(self):
    return functools.partial(jax.jit(self.module.call), jax.device_put(self.params))


def is_of(path: str | os.PathLike) -> bool:
  """Whether it is to be opened as an exported model: by its name's end."""
  return os.fspath(path).endswith(SUFFIX)


def write(weights, path: str | os.PathLike) -> None:
  """Exports a model (`weights.Weights`). Raises UserError for one without a head."""
  model, prepare = weights.pure_model(), weights.preprocessing
  leaves, treedef = jax.tree.flatten_with_path((weights.params, weights.stats))
  params = {jax.tree_util.keystr(keys, simple=True, separator='/'): np.asarray(leaf) for keys, leaf in leaves}
  order = list(params)

  def forward(params, images_BHWC):
    tree, stats = jax.tree.unflatten(treedef, [params[name] for name in order])
    logits_BC, _, _ = model.apply(tree, stats, prepare.normalize(images_BHWC))
    return jax.nn.softmax(logits_BC, axis=-1)

  batch = export.symbolic_shape('b, ' + ', '.join(map(str, weights.image_shape)))
  module = export.export(jax.jit(forward), platforms=PLATFORMS)(
      jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params), jax.ShapeDtypeStruct(batch, np.uint8))
  about = {'format': _FORMAT, 'preprocessing': schema.plain(prepare), 'class_names': weights.names()}
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  with zipfile.ZipFile(temporary, 'w') as archive:
    archive.writestr(_MODULE, bytes(module.serialize()))
    archive.writestr(_TENSORS, safetensors.numpy.save(params))
    archive.writestr(_MODEL, json.dumps(about, indent=2) + '\n')
  temporary.replace(path)


def read(path: str | os.PathLike) -> Exported:
  """The model in an exported file. Raises UserError for what is none, or is damaged."""
  where = os.fspath(path)
  try:
    with zipfile.ZipFile(path) as archive:
      if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise UserError(f'{where}: a compressed archive, which `vit_jax.convert --to=stablehlo` does not write')
      module, tensors, about = (archive.read(name) for name in (_MODULE, _TENSORS, _MODEL))
    about, params = json.loads(about), safetensors.numpy.load(tensors)
    if about.get('format') != _FORMAT:
      raise UserError(f'{where}: format={about.get("format")!r}, where {_FORMAT!r} is needed')
    module = export.deserialize(bytearray(module))
  except UserError:
    raise
  except FileNotFoundError as error:
    raise UserError(f'{where}: no such file') from error
  except Exception as error:  # what deserialising raises is not told anywhere
    said = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{where}: no whole exported model ({said[:120]}); was it cut off?') from error
  prepare = preprocessing.parse(about.get('preprocessing') or {}, where)
  names = about.get('class_names')
  classes = module.out_avals[0].shape[-1]
  if not isinstance(names, list) or len(names) != classes:
    raise UserError(f'{where}: class_names is not a list of {classes} names')
  return Exported(class_names=tuple(map(str, names)), preprocessing=prepare, params=params, module=module)
