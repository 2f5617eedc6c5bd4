"""What differs in run.json: config, code, data, versions, devices and sizes."""

from typing import Any, NamedTuple

from vit_jax import schema

ABSENT = object()

# Where the fields of run.json belong. Fields that are not listed come last, under `other`.
_FIELDS = {
    'code': ('git', 'code'),
    'data': ('data', 'teacher', 'pretrained'),
    'versions': ('versions',),
    'devices': ('devices', 'mesh'),
    'size': ('params', 'params_non_embedding', 'flops_per_example_forward', 'flops_per_example_train', 'steps'),
}
_ELSEWHERE = ('config', 'config_hash', 'trunk_hash', 'status')
_MEASURED = ('results',)  # the same numbers are rows of metrics.jsonl


class Setting(NamedTuple):
  """A leaf of run.json in which two runs differ. A run that lacks it has ABSENT."""
  key: str
  a: Any
  b: Any


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Setting]]:
  """{section: what differs} of two records, without sections where nothing does.

  The sections are `config` (what makes up a run's identity), `config.system` (what does not), `code`, `data`,
  `versions`, `devices`, `size` and `other`.
  """
  ours, theirs = _sections(a), _sections(b)
  found = {name: _differing(ours[name], theirs[name]) for name in ours}
  return {name: settings for name, settings in found.items() if settings}


def _sections(record):
  """{section: {dotted key: value}}."""
  config = record.get('config') or {}
  known = {name for names in _FIELDS.values() for name in names}
  record = record | {'data': _numbered(record.get('data') or {})}
  sections = {
      'config': {key: value for key, value in config.items() if key != 'system'},
      'config.system': config.get('system'),
      **{section: {name: record.get(name) for name in names} for section, names in _FIELDS.items()},
      'other': {name: value for name, value in record.items() if name not in {*known, *_ELSEWHERE, *_MEASURED}}}
  # A field that is null in run.json says no more than one that is absent.
  return {section: {key: value for key, value in schema.flat(fields or {}).items() if value is not None}
          for section, fields in sections.items()}


def _numbered(data):
  """Class names by their number, so that each renamed class has a line of its own."""
  classes = data.get('classes')
  if not isinstance(classes, list):
    return data
  return data | {'classes': {'count': len(classes)} | {str(i): name for i, name in enumerate(classes)}}


def _differing(ours, theirs):
  keys = [*ours, *(key for key in theirs if key not in ours)]
  pairs = [Setting(key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys]
  return [setting for setting in pairs if setting.a != setting.b]
