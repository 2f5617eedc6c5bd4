"""The image of --launcher=jobset: what it is built from is there in time, and a preflight tries the same files."""

import pathlib
import re
import tomllib

from vit_jax import sweep_preflight

ROOT = pathlib.Path(__file__).parents[2]
LINES = (ROOT / 'vit_jax' / 'launch' / 'Dockerfile').read_text().splitlines()
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())


def _copied(line):
  """The files and folders of a line COPY --chown=.. SOURCE.. TARGET."""
  return [pathlib.Path(word) for word in line.split()[1:-1] if not word.startswith('--')]


def test_uv_finds_what_it_builds_from():
  """uv asks for the version even where the project is not installed; hatchling, for all that a wheel has."""
  hatch = PROJECT['tool']['hatch']
  wheel = hatch['build']['targets']['wheel']
  resolved = {'pyproject.toml', PROJECT['project']['readme'], hatch['version']['path']}
  installed = resolved | {*wheel['packages'], *wheel['force-include']}
  copied, synced = [], 0
  for line in LINES:
    if line.startswith('COPY'):
      copied += _copied(line)
    if re.match('RUN uv sync', line):
      needed = resolved if '--no-install-project' in line else installed
      missing = [name for name in needed if not any(pathlib.Path(name).is_relative_to(path) for path in copied)]
      assert not missing, line
      synced += 1
  assert synced == 2


def test_what_is_copied_is_in_the_repository_and_tried_by_a_preflight():
  copied = {path for line in LINES if line.startswith('COPY') for path in _copied(line)}
  assert all((ROOT / path).exists() for path in copied)
  tried = [pathlib.Path(name) for name in sweep_preflight._COPIED]
  assert all(any(path.is_relative_to(name) for name in tried) for path in copied) and set(tried) <= copied


def test_versions_are_pinned():
  """The rest by pyproject.toml (tests/test_pins.py)."""
  (base,) = [line for line in LINES if line.startswith('FROM')]
  assert re.fullmatch(r'FROM python:3\.\d+\.\d+-slim-\w+', base)
  assert re.search(r'pip install .*uv==\d+\.\d+\.\d+ ', '\n'.join(LINES))
