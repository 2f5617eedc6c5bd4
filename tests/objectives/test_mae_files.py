"""Masked autoencoders written with their decoder: transformers' ViTMAEForPreTraining computes the same."""

import json

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vit_jax import config, interop
from vit_jax.errors import UserError
from vit_jax.inspection import own_model
from vit_jax.interop import tensors, writers
from vit_jax.layers.pos_embed import sincos2d
from vit_jax.objectives import reconstruct
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

pytestmark = pytest.mark.slow  # they share a run


def train(workdir, **model):
  c = config.defaults('vit', 'reconstruct')
  c.model.update(dict(patch_size=2, width=16, depth=2, mlp_dim=24, num_heads=2, pos_embed='sincos2d') | model)
  c.loss.update(dict(decoder_width=8, decoder_depth=1, decoder_mlp_dim=16, decoder_num_heads=2))
  c.data.source, c.data.channels, c.data.batch_size = 'digits', 3, 8
  c.train.steps, c.schedule.warmup_steps, c.optimizer.learning_rate = 2, 0, 0.05
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return str(workdir)


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return train(tmp_path_factory.mktemp('mae') / 'run')


def test_files_have_every_parameter_and_the_tables_of_positions(run, tmp_path):
  done = command_line.run('convert', run, tmp_path / 'out', '--to=hf-mae')
  assert done.returncode == 0, done.stderr
  own, file = own_model.load(run, None, 'reconstruct'), tensors.open_file(tmp_path / 'out' / 'model.safetensors')
  found, fixed = json.loads((tmp_path / 'out' / 'config.json').read_text()), 17 * 16 + 17 * 8
  assert found['architectures'] == ['ViTMAEForPreTraining'] and found['decoder_hidden_size'] == 8
  assert sum(np.prod(shape) for shape in file.shapes.values()) == own.weights.size + fixed
  np.testing.assert_array_equal(file['decoder.decoder_pos_embed'][0, 1:],
                                np.float32(reconstruct.positions((4, 4), 8)))
  np.testing.assert_array_equal(file['vit.embeddings.position_embeddings'][0, 1:], np.float32(sincos2d((4, 4), 16)))
  again = interop.read(tmp_path / 'out')  # its encoder
  ours = traverse_util.flatten_dict(own.weights.params)
  for path, value in traverse_util.flatten_dict(again.params).items():
    if path != ('pos_embed',):
      np.testing.assert_array_equal(value, ours[path], err_msg=str(path))


def test_what_transformers_does_not_have_is_refused(run, tmp_path):
  done = command_line.run('convert', run, tmp_path / 'out', '--to=hf-mae', '--image_size=16')
  assert done.returncode == 1 and '--image_size: is not for --to=hf-mae' in done.stderr
  own = own_model.load(run, None, 'reconstruct')
  wide = own.weights.__class__(**vars(own.weights) | {'model': own.weights.model | {'pool': 'gap'}})
  with pytest.raises(UserError, match="model.pool: transformers expects 'cls'"):
    writers.write_mae(wide, own.config.loss, reconstruct.positions((4, 4), 8), tmp_path / 'out')


@pytest.mark.parametrize('positions', ['sincos2d', 'learned'])
def test_live_transformers_computes_the_same(positions, run, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers', minversion='5.23.0')
  run = run if positions == 'sincos2d' else train(tmp_path / 'run', pos_embed=positions)
  own = own_model.load(run, None, 'reconstruct')
  objective = own.model.objective
  writers.write_mae(own.weights, own.config.loss, reconstruct.positions((4, 4), 8), tmp_path / 'out')
  theirs, info = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / 'out', output_loading_info=True)
  assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys']
  rng = np.random.default_rng(0)
  images, noise = rng.standard_normal((3, 8, 8, 3)).astype(np.float32), rng.random((3, 16), np.float32)
  with torch.no_grad():
    out = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)), noise=torch.from_numpy(noise))
  plain = lambda images, targets, weights: (images, targets)
  batch = objective.prepare(own.model, {'image': jnp.asarray(images), 'weight': jnp.ones(3)}, plain,
                            jax.random.split(jax.random.key(0), 3)) | {'order': jnp.argsort(jnp.asarray(noise), axis=1)}
  outputs, _ = own.model.call(own.weights.params, {}, lambda module: objective.forward(module, batch))
  np.testing.assert_array_equal(outputs['mask'], out.mask.numpy())
  np.testing.assert_allclose(outputs['pixels'], out.logits.numpy(), rtol=0, atol=1e-4)
  assert float(jnp.mean(objective.loss(outputs, batch)['loss'])) == pytest.approx(float(out.loss), rel=1e-5)
