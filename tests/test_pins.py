"""What is installed is what pyproject.toml pins: by .ci/pin, for this Python, with nothing left out."""

import importlib.metadata
import pathlib
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())


def _pinned():
  """{name: version} for this Python and platform."""
  pins = [Requirement(line) for line in PROJECT['tool']['uv']['constraint-dependencies']]
  here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
  names = [canonicalize_name(pin.name) for pin in here]
  assert len(names) == len(set(names)), 'one version each'
  return dict(zip(names, (str(pin.specifier) for pin in here)))


def _required():
  """Every distribution that the tests' environment needs, at any depth, and that is installed."""
  project = PROJECT['project']
  extras = project['optional-dependencies']
  waiting = [Requirement(line) for line in (*project['dependencies'], *extras['hub'], *extras['plan'], *extras['test'])]
  found = {}
  while waiting:
    requirement = waiting.pop()
    name, wanted = canonicalize_name(requirement.name), requirement.extras
    if name == project['name'] or found.get(name, (None, set()))[1] >= wanted | {''}:
      continue
    try:
      distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
      continue
    found[name] = distribution.version, found.get(name, (None, set()))[1] | wanted | {''}
    for line in distribution.requires or ():
      inner = Requirement(line)
      if inner.marker is None or any(inner.marker.evaluate({'extra': extra}) for extra in found[name][1]):
        waiting.append(inner)
  return {name: version for name, (version, _) in found.items()}


def test_each_is_one_version_without_an_address():
  for line in PROJECT['tool']['uv']['constraint-dependencies']:
    pin = Requirement(line)
    assert pin.url is None and [part.operator for part in pin.specifier] == ['=='], line


def test_all_that_is_required_is_pinned():
  pinned, required = _pinned(), _required()
  assert len(required) > 60 and {'jax', 'jaxlib', 'numpy', 'pytest'} <= set(required)
  assert not set(required) - set(pinned)


def test_what_is_installed_is_what_is_pinned():
  if pathlib.Path(sys.prefix).parent != ROOT:
    pytest.skip('only in the environment that `uv run` makes here')
  pinned = _pinned()
  assert {name: f'=={version}' for name, version in _required().items()} == {name: pinned[name] for name in _required()}
