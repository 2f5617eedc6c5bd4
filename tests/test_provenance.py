"""The digest of the code: what changes it, and what does not."""

import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from vit_jax import provenance

SOURCE = '''"""A docstring."""
import math

def area(radius, *, scale=1.0):
  """Of a circle."""
  # pi r^2
  return scale * math.pi * radius**2


class Shape:
  """A shape."""
  name: str = 'circle'

  def words(self):
    """In words."""
    return f'{self.name}: {area(1.0):.3f}'
'''


@pytest.mark.parametrize('old, new', [
    ('"""Of a circle."""', '"""Of a circle, as is known since Archimedes."""'), ('  # pi r^2\n', ''),
    ("'circle'", '"circle"'), ('scale * math.pi', '(scale *\n          math.pi)'), ('"""In words."""\n    ', ''),
    ('"""A docstring."""\n', ''), ('\n\n\nclass', '\nclass')])
def test_comments_docstrings_and_formatting_do_not_count(old, new):
  assert old in SOURCE
  assert provenance.of_source(SOURCE.replace(old, new)) == provenance.of_source(SOURCE)


@pytest.mark.parametrize('old, new', [
    ('radius**2', 'radius**3'), ('scale=1.0', 'scale=1'), ('math.pi * radius', 'radius * math.pi'), (':.3f', ':.4f'),
    ("'circle'", "'Circle'"), ('import math', 'import math, os'), ('*, scale', 'scale'), ('name: str', 'name: object')])
def test_a_program_that_differs_does(old, new):
  assert old in SOURCE
  assert provenance.of_source(SOURCE.replace(old, new)) != provenance.of_source(SOURCE)


def test_a_text_that_is_no_docstring_counts():
  assert provenance.of_source('x = 1\n"said"\n') != provenance.of_source('x = 1\n')


@pytest.fixture(name='package')
def _package(tmp_path, monkeypatch):
  """A copy of the package, and what its `provenance.code()` says."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  folder = tmp_path / 'copy' / 'vit_jax'
  shutil.copytree(pathlib.Path(provenance.__file__).parent, folder, ignore=shutil.ignore_patterns('__pycache__'))
  monkeypatch.setattr(provenance, '_PACKAGE', folder)
  provenance._cache_file.cache_clear()
  yield folder
  provenance._cache_file.cache_clear()


@pytest.mark.parametrize('file, counts', [
    ('layers/attention.py', True), ('data/order.py', True), ('training/step.py', True), ('schema.py', True),
    ('scaling/forms.py', False), ('launch/jobset.py', False), ('inspection/scores.py', False), ('law.py', False)])
def test_the_rooms_that_compute_are_covered(package, file, counts):
  before = provenance.code()
  path = package / file
  path.write_text(path.read_text() + '\n# a comment\n')
  assert provenance.code() == before
  path.write_text(path.read_text() + '\nADDED = 1\n')
  assert (provenance.code() != before) == counts
  (package / 'layers' / 'newer.py').write_text('')
  assert provenance.code() != before


def test_modules_from_elsewhere_count(tmp_path):
  file = tmp_path / 'plug_in.py'
  file.write_text('x = 1\n')
  module = types.ModuleType('plug_in')
  module.__file__ = str(file)
  first = provenance.code([module])
  assert first != provenance.code()
  file.write_text('x = 2\n')
  assert provenance.code([module]) != first


@pytest.mark.parametrize('damage', ['', '{', '[1]', '{"a": 1}'])
def test_a_damaged_cache_is_made_again(package, tmp_path, damage):
  whole = provenance.code()
  cache = tmp_path / 'cache' / 'vit_jax' / 'code.json'
  cache.write_text(damage)
  assert provenance.code() == whole and len(cache.read_text()) > 1000


def test_other_versions_of_python_agree():
  """This Python and the one beside it, where there is one, spell the package alike."""
  root = pathlib.Path(provenance.__file__).parents[1]
  versions = {shutil.which(f'python3.{minor}') for minor in (11, 12, 13)} - {None, sys.executable}
  code = 'import sys; sys.path.insert(0, sys.argv[1]); from vit_jax import provenance; print(provenance.code())'
  for python in versions:
    done = subprocess.run([python, '-c', code, root], capture_output=True, text=True, cwd='/')
    if done.returncode == 0:  # a shim without that version ends with an error
      assert done.stdout.strip() == provenance.code(), python
