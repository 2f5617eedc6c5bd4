"""Our own format: a folder that holds a model and how to use it, and nothing of a run.

  weights.safetensors    float32; a name for each parameter of each block (see `stacks`)
  model.json             family, its config, preprocessing, class names
"""

import json
import os
import pathlib

from vit_jax import models, schema
from vit_jax.data import preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import layer_names, layout, tensors
from vit_jax.interop.weights import Weights

MODEL, TENSORS = 'model.json', 'weights.safetensors'
_FORMAT = 'vit_jax bundle 1'


def write(weights: Weights, folder: os.PathLike) -> None:
  """Writes a bundle into a folder, which is made where it is missing."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  flat = layer_names.flat(weights.params) | layer_names.flat(weights.stats)
  tensors.write(folder / TENSORS, flat)
  fields = {'format': _FORMAT, 'family': weights.family, 'model': schema.plain(weights.config),
            'num_classes': weights.num_classes, 'class_names': weights.class_names,
            'preprocessing': schema.plain(weights.preprocessing)}
  (folder / MODEL).write_text(json.dumps(fields, indent=2) + '\n')


def read(folder: os.PathLike, without: tuple[str, ...] = ()) -> Weights:
  """The weights of a bundle. Raises UserError for one that is damaged."""
  folder = pathlib.Path(folder)
  fields, where = tensors.read_json(folder / MODEL), str(folder)
  if fields.get('format') != _FORMAT:
    raise UserError(f'{folder / MODEL}: format={fields.get("format")!r}, where {_FORMAT!r} is needed')
  family, model, classes = (fields.get(key) for key in ('family', 'model', 'num_classes'))
  if not isinstance(family, str) or not isinstance(model, dict) or not isinstance(classes, int | None):
    raise UserError(f'{folder / MODEL}: no family, model or num_classes in it')
  models.family(family)
  names = class_names(fields.get('class_names'), classes, where)
  weights = Weights(where, family, model, {}, {}, preprocessing.parse(fields.get('preprocessing') or {}, where), names)
  file = tensors.open_file(folder / TENSORS)
  return layout.read(file, weights, classes, None, without)


def class_names(names: object, classes: int | None, where: str) -> tuple[str, ...] | None:
  """The names out of a file, checked: one a class."""
  if names is None:
    return None
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != classes:
    raise UserError(f'{where}: class_names is not a list of {classes} names')
  return tuple(names)
