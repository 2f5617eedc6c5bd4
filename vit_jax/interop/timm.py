"""timm (PyTorch Image Models): safetensors, and a config.json with the name of the architecture.

The name stands for arguments of a class (`architectures`), which change what the same tensors compute. So a file
without a config.json is refused; one line is enough: {"architecture": "vit_base_patch16_224"}.
"""

import math
import sys
from typing import Any

from vit_jax.data.preprocessing import alike, parse
from vit_jax.errors import UserError
from vit_jax.interop import architectures, huggingface, layout
from vit_jax.interop.entries import Entries
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.timm_layouts import LAYOUTS
from vit_jax.interop.weights import Weights
from vit_jax.printable import say

_UNUSED = ('*.attn_mask',)  # tables in older files, which are now computed
_IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
# Entries of a config.json without an effect on the model or its pictures.
_TOP_FREE = ('architecture', 'num_classes', 'num_features', 'license', 'library_name', 'tags', 'pretrained_cfg')
_CFG_FREE = ('url', 'file', 'state_dict', 'hf_hub_id', 'hf_hub_filename', 'source', 'architecture', 'tag',
             'custom_load', 'test_input_size', 'min_input_size', 'fixed_input_size', 'test_crop_pct', 'num_classes',
             'label_names', 'label_descriptions', 'labels', 'pool_size', 'test_pool_size', 'first_conv', 'classifier',
             'license', 'description', 'origin_url', 'paper_name', 'paper_ids', 'notes', 'num_features')

_OF_TIMM = ('architecture', 'num_classes', 'num_features', 'global_pool', 'model_args', 'pretrained_cfg', 'label_names',
            'label_descriptions')


def read(tensors: Tensors, config: dict[str, Any], without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a timm model.

  Args:
    tensors: the tensors of its file.
    config: its config.json.
    without: see `layout.read`.

  Raises:
    UserError: an unsupported model, an entry of the config.json that is not supported or not known, or tensors that do
      not fit.
  """
  where = tensors.source
  if not config.get('architecture'):
    raise UserError(f'{where}: which model is it? Its tensors show widths and depths, but not the number of heads, the '
                    'activation or the pooling. Expected a config.json beside the file: that of transformers, of timm, '
                    'or one line with the name of the timm architecture: {"architecture": "vit_base_patch16_224"}')
  kind, arguments = architectures.meaning(config['architecture'], where)
  if kind not in LAYOUTS:
    raise UserError(f'{where}: architecture={config["architecture"]!r} is a {kind} of timm, which is not supported; '
                    f'supported: {", ".join(LAYOUTS)}')
  form, given = LAYOUTS[kind], _model_args(config, where)
  entries = Entries({**arguments, **given}, f'{where}: {config["architecture"]} of timm')
  try:
    tensors = form.derive(tensors, entries)
    model, rules = form.read(tensors.shapes, entries)
  except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError, AttributeError) as error:
    raise UserError(f'{where}: {config["architecture"]} is a {kind} of timm, but the file does not have its tensors or '
                    f'their shapes ({error}); is it another architecture?') from error
  cfg = _pretrained_cfg(config, where)
  preprocessing = _preprocessing(cfg, entries, tensors.shapes, model, form, where)
  _check_top(config, model, where)
  form.check(model, entries, preprocessing.size, where)
  classes = layout.num_classes(tensors, form.classifier)
  names = config.get('label_names', cfg.values.get('label_names'))
  names = tuple(map(str, names)) if isinstance(names, list) and len(names) == classes else None
  weights = Weights(where, form.family, model, {}, {}, preprocessing, names)
  return layout.read(tensors, weights, classes, rules, without + _UNUSED)


def unwrapped(config: dict[str, Any], where: str) -> dict[str, Any]:
  """timm's config out of the config.json of transformers' timm_wrapper.

  Raises:
    UserError: an entry of the wrapper that is not known, or that makes it another thing than a classifier.
  """
  huggingface.check_common(Entries(config, f'{where}: its config.json'), *_OF_TIMM, 'do_pooling')
  return {key: value for key, value in config.items() if key in _OF_TIMM}


def _model_args(config, where):
  given = config.get('model_args') or {}
  if not isinstance(given, dict):
    raise UserError(f'{where}: model_args in its config.json: expected an object, got {given!r}')
  return given


def _pretrained_cfg(config, where):
  """The entries about pictures and training; older files have them at the top."""
  cfg = config.get('pretrained_cfg')
  if cfg is None:
    cfg = {key: value for key, value in config.items() if key not in ('model_args', 'global_pool')}
  if not isinstance(cfg, dict):
    raise UserError(f'{where}: pretrained_cfg in its config.json: expected an object, got {cfg!r}')
  return Entries(cfg, f'{where}: pretrained_cfg in its config.json')


def _check_top(config, model, where):
  """Raises UserError for entries at the top of the config.json that are not known or contradict the model."""
  top = Entries(config, f'{where}: its config.json')
  top.free(*_TOP_FREE, 'model_args', 'label_names', 'label_descriptions', 'labels')
  if 'pretrained_cfg' not in config:
    top.free(*_CFG_FREE, 'input_size', 'interpolation', 'crop_pct', 'crop_mode', 'mean', 'std', 'label_offset')
  top.only('global_pool', {'cls': 'token', 'gap': 'avg', 'map': 'map'}[model.get('pool', 'gap')])
  top.close()


def _preprocessing(cfg, args, shapes, model, form, where):
  """The preparation of pictures, as timm's own evaluation does it."""
  cfg.free(*_CFG_FREE)
  cfg.only('label_offset', None, 0)
  missing = [key for key in ('mean', 'std', 'interpolation', 'crop_pct') if cfg.get(key) is None]
  if missing:
    say(f'{where}: its config.json does not say {", ".join(missing)} of pretrained_cfg; those of timm\'s ImageNet '
        'models are assumed', sys.stderr)
  try:
    first = next(shapes[name] for name in (f'{form.first}.weight', f'{form.first}.0.weight') if name in shapes)
    channels, *size = cfg.get('input_size', [first[1], 224, 224])
    if args.values.get('img_size'):
      size = args.values['img_size']
    elif cfg.get('input_size') is None and model.get('pos_embed') == 'learned':  # square, like all timm models
      tokens = shapes['pos_embed'][1] - sum(shapes[name][1] for name in ('cls_token', 'dist_token', 'reg_token')
                                            if name in shapes and not args.values.get('no_embed_class'))
      size = math.isqrt(tokens) * model['patch_size']
    mean, std = (alike(cfg.get(key, _IMAGENET[key])) for key in ('mean', 'std'))
  except (TypeError, ValueError, IndexError, StopIteration) as error:
    raise UserError(f'{where}: the pretrained_cfg in its config.json cannot be interpreted ({error})') from error
  fields = {'size': size, 'channels': channels, 'mean': mean, 'std': std, 'crop': cfg.get('crop_pct', 0.875),
            'interpolation': cfg.get('interpolation', 'bicubic'),
            'squeeze': cfg.choose('crop_mode', [('center', False), ('squash', True)], 'center')}
  cfg.close()
  return parse(fields, where)
