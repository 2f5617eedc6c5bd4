import pytest

from vit_jax import config
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


@pytest.fixture(name='workdir', scope='session')
def _workdir(tmp_path_factory):
  """The folder of a small finished ViT on the digits, with a CLS token."""
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 2, 'cls'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 2
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate, c.optimizer.ema_decay = 40, 120, 1e-2, 0.9
  workdir = tmp_path_factory.mktemp('run') / 'digits'
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return workdir
