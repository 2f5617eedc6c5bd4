"""The digest of the code: what changes it, and what does not."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import pytest

from vit_jax import provenance
from vit_jax.models import FAMILIES

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


def _plug_in(folder):
  """The class that a plug-in defines, whose module is loaded by its path."""
  spec = importlib.util.spec_from_file_location('plug_in', folder / 'plug_in.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.Model


@pytest.mark.parametrize('package', [False, True])
@pytest.mark.parametrize('line, used', [
    ('import helper', 'helper.py'), ('from helper import scale', 'helper.py'), ('import parts.norm', 'parts/norm.py'),
    ('from parts import norm', 'parts/norm.py'), ('from parts import norm', 'parts/__init__.py'),
    ('import numpy', None), ('from vit_jax.layers import norm', None)])
def test_a_plug_in_counts_with_what_it_imports_from_beside_it(tmp_path, monkeypatch, line, used, package):
  folder = tmp_path / 'mine' if package else tmp_path
  (folder / 'parts').mkdir(parents=True)
  for name in ('helper.py', 'parts/__init__.py', 'parts/norm.py', 'other.py', *(['__init__.py'] * package)):
    (folder / name).write_text('import other\nscale = 1\n' if used == name and not package else 'scale = 1\n')
  if package:
    line = line.replace('import helper', 'from . import helper').replace('from helper', 'from .helper').replace(
        'import parts.norm', 'import mine.parts.norm').replace('from parts', 'from .parts')
  (folder / 'plug_in.py').write_text(f'class Model:\n  def __call__(self):\n    {line}\n')
  files = provenance.elsewhere(_plug_in(folder))
  assert folder / 'plug_in.py' in files and (used is None or folder / used in files)
  assert (folder / 'other.py' in files) == (used is not None and not package)  # through what it imports
  first = provenance.code(files)
  assert first != provenance.code()
  for path in [folder / 'plug_in.py', *([folder / used] if used else [])]:
    before = path.read_text()
    path.write_text('# a comment\n' + before)
    assert provenance.code(files) == first
    path.write_text(before + 'more = 1\n')
    assert provenance.code(files) != first
    path.write_text(before)
  moved = shutil.copytree(tmp_path, tmp_path.with_name('moved'), dirs_exist_ok=True)
  assert provenance.code(moved / file.relative_to(tmp_path) for file in files) == first  # wherever they are


def test_this_package_and_other_peoples_are_not_elsewhere(tmp_path):
  assert not provenance.elsewhere(FAMILIES['vit'].config, FAMILIES['vit'].model, int)
  installed = tmp_path / 'site-packages'
  installed.mkdir()
  (installed / 'helper.py').write_text('')
  (installed / 'plug_in.py').write_text('class Model:\n  def __call__(self):\n    import helper\n')
  assert provenance.elsewhere(_plug_in(installed)) == [installed / 'plug_in.py']


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
