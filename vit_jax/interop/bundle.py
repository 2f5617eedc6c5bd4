"""The bundle, this project's own format: a folder with a model and what is needed to use it.

  weights.safetensors    float32, with a name per parameter and block (see `layer_names`)
  model.json             family, model config, preprocessing, class names
  README.md              the model card: what the model is, how it was trained, what was measured (`card`)
"""

import json
import os
import pathlib
from typing import Any

from vit_jax import durable, models, schema
from vit_jax.data import preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import card, classifier, layer_names, layout, tensors
from vit_jax.interop.weights import Weights

MODEL, TENSORS = 'model.json', 'weights.safetensors'
_FORMAT = 'vit_jax bundle 1'


def write(weights: Weights, folder: os.PathLike, record: dict[str, Any] | None = None, **told: Any) -> None:
  """Writes a bundle into a folder, which is created if it does not exist.

  Args:
    weights: the model.
    folder: where.
    record: what is known of it, as in `card.write`; None: that of the run of `weights`.
    **told: for its card (`card.write`).
  """
  text = card.write(weights, record or card.record_of(weights), **told)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  flat = layer_names.flat(weights.params) | layer_names.flat(weights.stats)
  tensors.write(folder / TENSORS, flat)
  fields = {'format': _FORMAT, 'family': weights.family, 'model': schema.plain(weights.config),
            'num_classes': weights.num_classes, 'class_names': weights.class_names,
            'preprocessing': schema.plain(weights.preprocessing),
            **({'several_labels': True} if weights.several_labels else {}),
            **({'temperature': weights.temperature} if weights.temperature != 1 else {})}
  durable.write(folder / MODEL, json.dumps(fields, indent=2) + '\n')
  durable.write(folder / card.FILE, text)


def read(folder: os.PathLike, without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a bundle. Raises UserError if it is damaged."""
  folder = pathlib.Path(folder)
  fields, where = tensors.read_json(folder / MODEL), str(folder)
  if fields.get('format') != _FORMAT:
    raise UserError(f'{folder / MODEL}: format: expected {_FORMAT!r}, got {fields.get("format")!r}')
  family, model, classes = (fields.get(key) for key in ('family', 'model', 'num_classes'))
  if not isinstance(family, str) or not isinstance(model, dict) or not isinstance(classes, int | None):
    raise UserError(f'{folder / MODEL}: expected family (text), model (object) and num_classes (integer or null), got '
                    f'family={family!r}, model={type(model).__name__} and num_classes={classes!r}')
  models.family(family)
  names = class_names(fields.get('class_names'), classes, where)
  weights = Weights(where, family, model, {}, {}, preprocessing.parse(fields.get('preprocessing') or {}, where), names,
                    several_labels=fields.get('several_labels') is True,
                    temperature=classifier.temperature(fields, where))
  file = tensors.open_file(folder / TENSORS)
  return layout.read(file, weights, classes, None, without)


def class_names(names: object, classes: int | None, where: str) -> tuple[str, ...] | None:
  """Checks the class names from a file: one per class."""
  if names is None:
    return None
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != classes:
    raise UserError(f'{where}: class_names: expected a list of {classes} names')
  return tuple(names)
