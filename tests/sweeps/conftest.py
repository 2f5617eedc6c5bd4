import pytest

RECIPE = '''
from vit_jax import config

def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 1, 32, 8
  c.data.batch_size = 32
  c.train.epochs = 2
  return c
'''


@pytest.fixture
def write_sweep(tmp_path):
  """write_sweep('seeds(2)') -> the path of a sweep file with these runs of a tiny recipe."""
  (tmp_path / 'tiny.py').write_text(RECIPE)

  def write(runs, name='mine'):
    path = tmp_path / f'{name}.py'
    path.write_text('from vit_jax.sweeps import axis, branches, chain, isoflop, product\n'
                    'from vit_jax.sweeps import Sweep, seeds, zip\n'
                    f'def get_sweep():\n  return Sweep({str(tmp_path / "tiny.py")!r}, {runs})\n')
    return str(path)

  return write
