"""Writes vit_jax/interop/timm_architectures.json: what each architecture name of timm means.

  pip install torch torchvision timm==1.0.31
  python experiments/interop/architectures.py

A config.json of timm has the name of an architecture and the arguments that differ from it. The name is a function of
timm, so what it stands for is in no file of weights. This script calls the functions with the constructor of the model
taken out, and writes down the arguments that they would have passed to it, one name a line:

  "NAME": ["CLASS", {"ARGUMENT": value, ..}]

A layer is written as the name of its class, and functools.partial as NAME(key=value).
"""

import dataclasses
import functools
import json
import pathlib
import sys

import timm

PREFIXES = ('vit', 'deit', 'swin', 'resnet', 'resnext', 'wide_resnet', 'regnet', 'convnext', 'flexivit', 'eva02',
            'naflexvit', 'samvit', 'seresnet', 'seresnext', 'ecaresnet', 'gcresnet', 'skresnet', 'skresnext')
OUT = pathlib.Path(__file__).parents[2] / 'vit_jax' / 'interop' / 'timm_architectures.json'


class _Called(Exception):
  """Carries what the constructor was called with."""


def plain(value):
  """The value as JSON has it."""
  if isinstance(value, functools.partial):
    own = ', '.join(f'{key}={plain(v)!r}' for key, v in sorted(value.keywords.items()))
    return f'{plain(value.func)}({own})'
  if isinstance(value, dict):
    return {str(key): plain(v) for key, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  return getattr(value, '__name__', type(value).__name__)


def meaning(name):
  """[class, arguments] of an architecture."""
  entry = timm.model_entrypoint(name)
  module = sys.modules[entry.__module__]
  original = module.build_model_with_cfg

  def record(model_cls, variant, pretrained, model_cfg=None, **kwargs):
    own = dict(kwargs)
    for key in ('pretrained_cfg', 'pretrained_cfg_overlay', 'pretrained_filter_fn', 'pretrained_strict', 'feature_cfg',
                'kwargs_filter', 'pretrained_model_args', 'cache_dir'):
      own.pop(key, None)
    cfg = {} if model_cfg is None else plain(model_cfg)
    raise _Called([plain(model_cls), {**cfg, **plain(own)}])

  module.build_model_with_cfg = record
  try:
    entry(pretrained=False)
  except _Called as called:
    return called.args[0]
  finally:
    module.build_model_with_cfg = original
  raise ValueError(f'{name}: built without build_model_with_cfg')


def main():
  names = sorted({name for prefix in PREFIXES for name in timm.list_models(f'{prefix}*')})
  lines = []
  for name in names:
    try:
      lines.append(f'{json.dumps(name)}: {json.dumps(meaning(name))}')
    except (ValueError, AttributeError) as error:
      print(f'{name}: left out ({error})')
  OUT.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
  print(f'{OUT.name}: {len(lines)} architectures of timm {timm.__version__}, {OUT.stat().st_size:,} bytes')


if __name__ == '__main__':
  main()
