"""Writing files of transformers: the names of its tensors, and the config.json from which from_pretrained builds."""

from typing import Any

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.interop import layout
from vit_jax.interop.huggingface_layouts import LAYOUTS, SEVERAL, VALUES
from vit_jax.interop.weights import Weights


def config_json(weights: Weights, kind: str | None = None) -> dict[str, Any]:
  """The config.json from which `from_pretrained` builds the model.

  Args:
    weights: the model.
    kind: the model_type; None: the one of the family's classifier.

  Raises:
    UserError: transformers does not have the model.
  """
  kind = kind or _kind(weights)
  form, config = LAYOUTS[kind], weights.config
  for name, right in form.fixed.items():
    if getattr(config, name) != right:
      raise UserError(f'{weights.source}: model.{name}: transformers expects {right!r} in a {kind}, got '
                      f'{getattr(config, name)!r}; try --to=timm or --to=bundle')
  layout.check_representable(weights, {*form.fields, *form.fixed}, 'transformers')
  out = {'architectures': [form.architecture if not weights.headless else form.architecture.split('For')[0] + 'Model'],
         'model_type': kind, 'num_channels': weights.preprocessing.channels,
         'image_size': list(weights.preprocessing.size), **form.must}
  for ours, (key, _) in form.fields.items():
    value = getattr(config, ours)
    out[key] = VALUES[ours][1](value) if ours in VALUES else list(value) if isinstance(value, tuple) else value
  if kind.startswith('convnext'):
    out['num_stages'] = len(config.depths)
  if not weights.headless:
    names = weights.class_names or [f'LABEL_{i}' for i in range(weights.num_classes)]
    if weights.several_labels:
      out['problem_type'] = SEVERAL
    out |= {'id2label': {str(i): name for i, name in enumerate(names)}, 'label2id': {n: i for i, n in enumerate(names)}}
  return out


def write(weights: Weights) -> dict[str, np.ndarray]:
  """{their name: array}."""
  return layout.write(weights, LAYOUTS[_kind(weights)].rules(weights.config))


def _kind(weights):
  """The model_type of a model of this project."""
  kind = weights.family
  if kind == 'resnet' and weights.config.stem == 'half':
    kind = 'regnet'
  if kind == 'convnext' and weights.config.grn:
    kind = 'convnextv2'
  if kind not in LAYOUTS:
    raise UserError(f'{weights.source}: transformers has no {weights.family}{nearest(weights.family, LAYOUTS)}')
  return kind
