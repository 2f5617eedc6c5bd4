"""The encoder by itself: tokens in, tokens out, and what it computes on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax.errors import UserError
from vit_jax.layers import kernels
from vit_jax.layers.encoder import CAPTURES, Encoder
from vit_jax.layers.stack import Execution
from vit_jax.models import vit

CONFIG = vit.Config(width=16, depth=3, mlp_dim=32, num_heads=2, layer_scale=0.5, dropout=0.1, drop_path=0.05)
GRID = (2, 3)
X = jax.random.normal(jax.random.key(1), (2, 7, 16))  # one token before the patches
KEYS = jax.random.split(jax.random.key(2), 2)


def _encoder(execution=Execution()):
  """Its call, with parameters made here and now."""
  graphdef, params = nnx.split(Encoder(CONFIG, GRID, 'rope2d', rngs=nnx.Rngs(0), execution=execution), nnx.Param)
  return lambda *args, **kwargs: nnx.merge(graphdef, params)(*args, **kwargs)


@pytest.mark.parametrize('scan', [True, False])
def test_what_is_captured_adds_up_to_the_residual_stream(scan):
  """With noise: x + attention's output + the MLP's output is what the next block reads."""
  y, out = jax.jit(functools.partial(_encoder(Execution(scan=scan)), capture=CAPTURES))(X, KEYS)
  assert set(out) == set(CAPTURES) and out['attention'].shape == (3, 2, 2, 7, 7)
  before = np.concatenate([X[None], out['features'][:-1]])
  np.testing.assert_allclose(out['after_attention'], before + out['attention_output'], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(out['features'], out['after_attention'] + out['mlp_output'], rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(y, out['features'][-1])
  for name in ('attention_output', 'mlp_output'):
    assert (np.abs(out[name]).max((1, 2, 3)) > 1e-3).all()
  np.testing.assert_allclose(out['attention'].sum(-1), 1, rtol=1e-5)


def test_what_is_not_asked_for_is_neither_computed_nor_kept():
  """The scan over the blocks gives nothing but the residual stream, and each name adds one array to it."""
  encoder = _encoder()

  def kept(*capture):
    jaxpr = jax.make_jaxpr(functools.partial(encoder, capture=capture))(X)
    scan = next(equation for equation in jaxpr.eqns if equation.primitive.name == 'scan')
    return [variable.aval.shape for variable in scan.outvars]

  assert kept() == [X.shape]
  assert kept('mlp_output') == [X.shape, (3, *X.shape)] and kept('attention') == [X.shape, (3, 2, 2, 7, 7)]
  assert len(kept(*CAPTURES)) == 1 + len(CAPTURES)


def test_unrolled_the_last_block_computes_the_tokens_that_are_read():
  unrolled, scanned = _encoder(Execution(scan=False)), _encoder()
  run = lambda **kwargs: unrolled(X, **kwargs)[0]
  np.testing.assert_allclose(run(read=1), run()[:, :1], rtol=1e-5, atol=1e-5)
  assert run(read=1).shape == (2, 1, 16) and scanned(X, read=1)[0].shape == X.shape
  assert run(read=1, capture=('features',)).shape == X.shape


def test_every_kind_of_attention_of_the_config_has_an_entry():
  of_texts = {'causal'}
  assert set(kernels.KINDS) == {*vit.Config.__annotations__['attention'].__args__, *of_texts}


def test_a_kernel_is_one_entry(monkeypatch):
  """A kernel of zeros, which runs on CPUs only, where there is a mesh."""
  from vit_jax.models import PureModel
  from vit_jax.parallel.mesh import single_device, traced_on
  asked = []

  nothing = lambda q, k, v, base_head_dim=None, bias_WHTS=None, queries=None: (jnp.zeros_like(q[:, :queries]), None)
  monkeypatch.setitem(kernels.KERNELS, 'nothing', kernels.Kernel(nothing, 'zeros', 'cpu', asked.append))
  build = lambda kernel, **fields: PureModel('vit', vit.Config(patch_size=4, width=16, depth=2, num_heads=2, **fields),
                                             (8, 8, 3), 3, Execution(attention_kernel=kernel))
  model, images = build('nothing'), jnp.ones((1, 8, 8, 3))
  params = jax.tree.map(lambda s: jnp.full(s.shape, 0.1), model.param_shapes())
  outputs = lambda model: lambda: model.apply(params, {}, images, capture=('attention_output',))[1]['attention_output']
  on_mesh, without = jax.jit(traced_on(single_device(), outputs(model)))(), outputs(model)()
  np.testing.assert_allclose(on_mesh, 0.1, rtol=1e-6)  # the bias of the output projection
  np.testing.assert_array_equal(without, outputs(build('plain'))())
  assert asked[0] == kernels.Request(tokens=4, heads=2, head_dim=8)
  assert asked[-1] == kernels.Request(tokens=5, heads=2, head_dim=8)
  with pytest.raises(UserError, match='system.execution.attention_kernel=nothing adds no biases'):
    build('nothing', pos_embed='relative')
  with pytest.raises(UserError, match="attention_kernel=nothng: no such kernel; did you mean 'nothing'"):
    build('nothng')
