"""The notebooks of docs/: they are stripped, name what exists, and run."""

import ast
import json
import re

import pytest
from command_line import ON_CPU, ROOT

import vit_jax

ENVIRONMENT = ON_CPU | {'PYTHONPATH': str(ROOT)}
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


# What stands in a notebook's first cell, for runs that take seconds.
SHORTER = {
    'first_model': 'steps = 20',
    'first_law': """
sweep, bootstrap = workdir + '.py', 20
with open(sweep, 'w') as file:
  file.write('from vit_jax import sweeps\\n\\n\\ndef get_sweep():\\n'
             "  return sweeps.Sweep('digits_law', sweeps.product(\\n"
             "      sweeps.axis('data.unique_examples', 60, 240, 480, 960),\\n"
             "      sweeps.axis('train.steps', 40), sweeps.axis('schedule.warmup_steps', 4)))\\n")
"""}


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
  nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient', reason='no nbclient')
  pytest.importorskip('ipykernel', reason='no ipykernel')
  for name, value in ENVIRONMENT.items():  # of the kernel
    monkeypatch.setenv(name, value)
  notebook = nbformat.read(path, 4)
  first = next(cell for cell in notebook.cells if cell.cell_type == 'code')
  first.source = f'import vit_jax\nworkdir = {str(tmp_path / "made")!r}\n{SHORTER[path.stem]}'
  nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3', coalesce_streams=True,
                          resources={'metadata': {'path': str(tmp_path)}}).execute()
  assert notebook.cells[-1].outputs
  for cell in notebook.cells:  # a cell shows what it prints as one output, and its value
    shown = [output for output in cell.get('outputs', ()) if output.get('name') != 'stderr']
    assert len(shown) <= 2 and len(shown) == len(cell.get('outputs', ())), cell.outputs
