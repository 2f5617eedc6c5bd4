"""Exported files from anywhere: refused by name before a backend loads them, or their outputs are probabilities."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from vit_jax.errors import UserError
from vit_jax.interop import exported, module_check

PARAMS = {'kernel': np.ones((12, 3), np.float32), 'bias': np.zeros(3, np.float32)}


def _probabilities(params, images):
  flat = images.astype(jnp.float32).reshape(images.shape[0], -1)
  return jax.nn.softmax(flat @ params['kernel'] + params['bias'][None])


def _callback(target):
  """A function that calls a target by the address of a Python function: here any number."""
  def forward(params, images):
    out = _probabilities(params, images)
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(out.shape, out.dtype))
    return call(out, index=np.uint64(12345))
  return forward


def _write(path, forward=_probabilities, calls=(), params=PARAMS, **metadata):
  """An exported file of any function, as `exported.write` lays it out."""
  shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), PARAMS)
  images = jax.ShapeDtypeStruct(export.symbolic_shape('b, 2, 2, 3'), np.uint8)
  checks = [export.DisabledSafetyCheck.custom_call(name) for name in calls]
  module = export.export(jax.jit(forward), platforms=exported.PLATFORMS, disabled_checks=checks)(shapes, images)
  fields = {'format': 'vit_jax export 1', 'preprocessing': {'size': [2, 2]}, 'class_names': ['a', 'b', 'c'], **metadata}
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('module.bin', bytes(module.serialize()))
    archive.writestr('weights.safetensors', safetensors.numpy.save(params))
    archive.writestr('model.json', json.dumps(fields))
  return path


def _images():
  return [np.zeros((2, 2, 3), np.uint8)] * 2


def test_a_good_file_predicts(tmp_path):
  model = exported.read(_write(tmp_path / 'good.stablehlo'))
  np.testing.assert_allclose(model.probabilities(_images()), np.full((2, 3), 1 / 3), rtol=1e-6)


@pytest.mark.parametrize('target', ['xla_ffi_python_cpu_callback', 'xla_python_cpu_callback', 'my_exec'])
def test_a_call_that_leaves_the_model_is_refused_by_name(tmp_path, target, monkeypatch):
  path = _write(tmp_path / 'bad.stablehlo', _callback(target), [target])
  monkeypatch.setattr(jax, 'jit', lambda *_: pytest.fail('loaded'))
  with pytest.raises(UserError, match=f'bad.stablehlo: calls {target}, outside of the model') as refused:
    exported.read(path)
  assert 'vit_jax.convert' in str(refused.value)


def test_a_call_within_a_loop_or_a_branch_is_found_too(tmp_path):
  call = _callback('my_exec')

  def forward(params, images):
    out = _probabilities(params, images)
    return jax.lax.fori_loop(0, 2, lambda i, x: jax.lax.cond(i == 0, lambda: x, lambda: call(params, images)), out)
  with pytest.raises(UserError, match='calls my_exec'):
    exported.read(_write(tmp_path / 'bad.stablehlo', forward, ['my_exec']))


def test_what_our_own_files_call_is_allowed_and_needed(tmp_path, monkeypatch):
  monkeypatch.setattr(module_check, 'CALLS', ())
  with pytest.raises(UserError, match='calls shape_assertion'):
    exported.read(_write(tmp_path / 'good.stablehlo'))


@pytest.mark.parametrize('forward, message', [
    (lambda p, x: _probabilities(p, x) * jnp.nan, '6 of 6 outputs are NaN or infinite'),
    (lambda p, x: _probabilities(p, x) / 0, '6 of 6 outputs are NaN or infinite'),
    (lambda p, x: _probabilities(p, x) + 3, 'outputs from 3.333 to 3.333'),
    (lambda p, x: _probabilities(p, x) - jnp.array([[1., -1., 0.]]), 'outputs from -0.6667 to 1.333'),
    (lambda p, x: _probabilities(p, x) * 0, 'outputs from 0 to 0'),
])
def test_outputs_that_are_not_probabilities(tmp_path, forward, message):
  model = exported.read(_write(tmp_path / 'odd.stablehlo', forward))
  with pytest.raises(UserError, match=f'odd.stablehlo: {message}.* expected probabilities'):
    model.probabilities(_images())


@pytest.mark.parametrize('metadata, message', [
    ({'preprocessing': {'size': [65536, 65536]}}, 'pictures of 65536 x 65536 x 3, but the module takes 2 x 2 x 3'),
    ({'preprocessing': {'size': [2, 2], 'channels': 1}}, 'pictures of 2 x 2 x 1, but the module takes 2 x 2 x 3'),
    ({'class_names': ['a', 'b']}, 'expected a list of 3 names'),
    ({'class_names': 3}, 'expected a list of 3 names'),
    ({'params': {'kernel': PARAMS['kernel']}}, '1 arrays are not those that the module takes .bias'),
    ({'params': PARAMS | {'bias': np.zeros(4, np.float32)}}, '1 arrays are not those'),
    ({'params': PARAMS | {'bias': np.zeros(3, np.float16)}}, '1 arrays are not those'),
    ({'forward': lambda p, x: (x, x)}, 'expected a function of parameters and pictures'),
    ({'forward': lambda p, x: x}, 'expected a function of parameters and pictures'),
    ({'forward': lambda p, x: _probabilities(p, x).T}, 'expected a function of parameters and pictures'),
    ({'forward': lambda p, x: _probabilities(p, x).astype(jnp.int32)}, 'expected a function of parameters'),
])
def test_a_file_whose_parts_do_not_fit(tmp_path, metadata, message):
  with pytest.raises(UserError, match=message):
    exported.read(_write(tmp_path / 'odd.stablehlo', **metadata))
