"""The weights of a run: read without the optimizer, verified by digests, and with the scores of the run."""

import jax
import numpy as np
import pytest

from vit_jax import checkpoint, interop, records
from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


@pytest.mark.parametrize('ema_decay', [0.0, 0.9])
def test_weights_of_a_run_have_its_scores(tiny_config, tmp_path, ema_decay):
  tiny_config.optimizer.ema_decay = ema_decay
  loop.train(run_lib.prepare(run_config.cast(tiny_config)), tmp_path, Display())
  weights, results = interop.read(tmp_path), records.read_run(tmp_path)['results']
  assert weights.family == 'vit' and weights.config.width == 16 and weights.image_shape == (8, 8, 1)
  assert weights.class_names == tuple(map(str, range(10)))
  model = weights.pure_model()
  shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert shapes(weights.params) == shapes(model.param_shapes())
  images, labels = pipeline.open_data(run_config.cast(tiny_config).data).arrays('test').values()
  logits, _, _ = jax.jit(model.apply)(weights.params, weights.stats, weights.preprocessing.normalize(images))
  assert (np.asarray(logits).argmax(-1) == labels).mean() == pytest.approx(results['test']['accuracy'], abs=1e-6)


def test_only_requested_arrays_are_read_and_they_are_verified(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  tree = {'params': {'a': np.arange(6, dtype=np.float32)}, 'optimizer': {'b': np.ones(3, np.float32)}}
  checkpoints.save(1, jax.tree.map(jax.numpy.asarray, tree), {})
  checkpoints.wait()
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = {'params': {'a': jax.ShapeDtypeStruct((6,), np.float32, sharding=place)}}
  found = checkpoints.restore_some(1, like)
  assert list(found) == ['params']
  np.testing.assert_array_equal(found['params']['a'], tree['params']['a'])
  other = checkpoints.record(1)['arrays'] | {'params/a': 1}
  monkeypatch.setattr(checkpoints, 'record', lambda step: {'arrays': other})
  with pytest.raises(checkpoint.Damaged, match='1 of 1 arrays differ from what was saved .params/a'):
    checkpoints.restore_some(1, like)
  checkpoints.close()


def test_an_empty_folder(tmp_path):
  with pytest.raises(UserError, match='expected a run .*, found none'):
    interop.read(tmp_path)
