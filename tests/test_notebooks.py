"""The notebooks of docs/: they are stripped, name what exists, and run."""

import ast
import json
import re

import pytest
from command_line import ROOT

import vit_jax

NOTEBOOKS = sorted(ROOT.glob('docs/notebooks/*.ipynb'))


def _code(path):
  return [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']


def test_there_are_notebooks():
  assert [path.stem for path in NOTEBOOKS] == ['first_law', 'first_model']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stripped_and_names_what_exists(path):
  for cell in _code(path):
    source = ''.join(cell['source'])
    ast.parse(source)
    assert cell['outputs'] == [] and cell['execution_count'] is None, source
    for name in re.findall(r'\bvit_jax\.(\w+)', source):
      assert name in vit_jax.__all__, name


@pytest.mark.slow
def test_first_model_runs(tmp_path):
  nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient', reason='no nbclient')
  pytest.importorskip('ipykernel', reason='no ipykernel')
  notebook = nbformat.read(ROOT / 'docs/notebooks/first_model.ipynb', 4)
  first = next(cell for cell in notebook.cells if cell.cell_type == 'code')
  first.source = f'import vit_jax\nworkdir, steps = {str(tmp_path / "run")!r}, 20'
  nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3').execute()
  assert notebook.cells[-1].outputs
