"""Sweep files for the tests."""

import command_line
import pytest

RECIPE = command_line.recipe('c.model.depth, c.model.num_heads = 1, 8', 'c.train.epochs = 2')


@pytest.fixture
def write_sweep(tmp_path):
  """A function such that write_sweep('seeds(2)') is the path of a sweep file with these runs of a tiny recipe."""
  (tmp_path / 'tiny.py').write_text(RECIPE)

  def write(runs, name='mine'):
    path = tmp_path / f'{name}.py'
    path.write_text('from vit_jax.sweeps import axis, branches, chain, isoflop, product\n'
                    'from vit_jax.sweeps import Sweep, seeds, zip\n'
                    f'def get_sweep():\n  return Sweep({str(tmp_path / "tiny.py")!r}, {runs})\n')
    return str(path)

  return write
