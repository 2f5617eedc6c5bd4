"""Attention for GPUs, without one: the step is lowered for CUDA, and padding changes nothing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from vit_jax import config
from vit_jax.layers import cudnn
from vit_jax.layers.attention import attend, logit_scale
from vit_jax.models import vit
from vit_jax.parallel import rules
from vit_jax.rehearsal import job as job_lib
from vit_jax.training import config as run_config
from vit_jax.training import state, step

BATCH = 8
KERNELS = ('__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward')


@pytest.fixture
def cudnn_9_13_on_hopper(monkeypatch):
  """JAX's own checks of what cuDNN can do, as on such a machine."""
  from jax._src.cudnn import fused_attention_stablehlo as lib
  monkeypatch.setattr(lib, 'check_cudnn_version', lambda: 91300)
  monkeypatch.setattr(lib, 'check_compute_capability', lambda capability: True)
  monkeypatch.setattr(lib, 'is_cuda_compute_capability_equal', lambda capability: False)


def _lowered(size, side):
  """The text of a ViT's whole training step for a GPU."""
  from jax._src.mesh import AbstractDevice
  c = config.load_recipe('configs/vit_s16.py')
  c.model.update(vit.size(size))
  c.model.pool, c.data.image_size, c.data.batch_size = 'cls', (side, side), BATCH
  job = job_lib.open_job(run_config.cast(c))
  mesh = AbstractMesh((1, 1, 1), rules.AXES, axis_types=(AxisType.Auto,) * 3,
                      abstract_device=AbstractDevice('NVIDIA H100 80GB HBM3', None, 'gpu'))
  one = step.make_step(job.model, job.config, job.schedule_steps)

  def traced(*args):
    with jax.sharding.use_abstract_mesh(mesh), rules.tracing(rules.DEFAULT):
      return one(*args)

  array = lambda dtype, *shape: jax.ShapeDtypeStruct((BATCH, *shape), dtype)
  batch = {'image': array(jnp.uint8, side, side, 3), 'label': array(jnp.int32), 'weight': array(jnp.float32)}
  checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in KERNELS]  # they are not promised for later
  exported = jax.export.export(jax.jit(traced), platforms=['cuda'], disabled_checks=checks)
  return exported(state.shapes(job.model, job.config), batch).mlir_module()


@pytest.mark.parametrize('size, side, tokens', [('S/16', 224, 197), ('B/16', 256, 257), ('L/16', 384, 577)])
def test_the_step_lowers_for_a_gpu(cudnn_9_13_on_hopper, size, side, tokens):
  """With both kernels, which get an even number of tokens, and without an array of [.., T, T]."""
  text, heads = _lowered(size, side), vit.size(size)['num_heads']
  calls = re.findall(r'@(__cudnn\$\w+)', text)
  assert set(calls) == set(KERNELS) and calls.count(KERNELS[0]) == calls.count(KERNELS[1])  # none is called again
  assert f'tensor<{BATCH}x{tokens + 1}x{heads}x64xbf16>' in text
  assert not re.search(rf'tensor<[\dx]*x({tokens}x{tokens}|{tokens + 1}x{tokens + 1})x\w+>', text)


@pytest.mark.parametrize('tokens', [16, 17])
def test_an_odd_number_of_tokens_is_padded_exactly(tokens):
  q, k, v, weights = jax.random.normal(jax.random.key(0), (4, 2, tokens, 2, 8))
  padded = lambda *qkv: jnp.sum(weights * cudnn.by_kernel(*qkv, scale=logit_scale(8), implementation='xla'))
  plain = lambda *qkv: jnp.sum(weights * attend(*qkv)[0])
  ours, theirs = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(q, k, v) for f in (padded, plain))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
