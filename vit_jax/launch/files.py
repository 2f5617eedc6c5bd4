"""Rendered tasks as YAML files."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from vit_jax import durable
from vit_jax.errors import UserError

_READ = ('.yaml', '.yml', '.json')  # the files that `kubectl apply -f FOLDER` reads


def write(folder: str, rendered: Mapping[str, Any]) -> list[pathlib.Path]:
  """Writes each entry {label: tree} to FOLDER/LABEL.yaml, replacing files of the same tasks.

  Raises:
    UserError: the folder has other files, which would be started together with these.
  """
  out = pathlib.Path(folder)
  paths = [out / f'{label}.yaml' for label in rendered]
  if out.exists() and not out.is_dir():
    raise UserError(f'--out={folder}: expected a folder, got a file')
  others = sorted(p.name for p in out.iterdir() if p.suffix in _READ and p not in paths) if out.exists() else []
  if others:
    more = f' and {len(others) - 1} more' if len(others) > 1 else ''
    raise UserError(f'--out={folder}: expected only files of this sweep, because all files in it are started together, '
                    f'got {others[0]}{more}. Remove them, or give another folder')
  out.mkdir(parents=True, exist_ok=True)
  for path, tree in zip(paths, rendered.values()):
    durable.write(path, to_yaml(tree))
  return paths


def to_yaml(tree: Any) -> str:
  """YAML that means the same in every version: text is quoted unless it is a plain word."""
  return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=110)


class _Dumper(yaml.SafeDumper):

  def ignore_aliases(self, data):
    return True


def _text(dumper, text):
  # YAML 1.1 and 1.2 disagree on words such as y, 1e3, 0o7 and 1:30, and PyYAML quotes only those of its own version.
  style = '|' if '\n' in text else None if re.fullmatch(r'[A-Za-z][A-Za-z0-9_./-]+', text) else '"'
  return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


def _list(dumper, values):
  """Lists of integers on one line, other lists with one item per line."""
  numbers = all(isinstance(value, int) for value in values)
  return dumper.represent_sequence('tag:yaml.org,2002:seq', values, flow_style=numbers)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
