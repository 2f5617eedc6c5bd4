import jax
import jax.numpy as jnp
import pytest

from vit_jax.cost import flops
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, resnet, vit
from vit_jax.optimisation import trainable
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.parallel import mesh as mesh_lib

# Zhai et al. 2022, table 2, and So400m: millions of parameters without the head, GFLOPs at 224x224.
# So400m has attention pooling; the others have a CLS token.
PUBLISHED = {
    'Ti/16': (5.5, 2.5, 'cls'), 'S/16': (22, 9.2, 'cls'), 'B/16': (86, 35.1, 'cls'), 'L/16': (303, 122.9, 'cls'),
    'g/14': (1011, 533.1, 'cls'), 'G/14': (1843, 965.3, 'cls'), 'So400m/14': (428, 221, 'map'),
}


def _model(name, pool='cls', image=224, execution=Execution()):
  return PureModel('vit', vit.Config(**vit.size(name), pool=pool), (image, image, 3), 1000, execution)


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  params, gflops, pool = PUBLISHED[name]
  model = _model(name, pool)
  head = model.param_shapes()['head']['kernel'].size + 1000
  digits = 0.5 / 22 if params == 22 else 0.01  # 22 is given with two digits
  assert (flops.params(model)[0] - head) / 1e6 == pytest.approx(params, rel=digits)
  assert flops.per_example(model)[0] / 1e9 == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize('name, pool', [('Ti/16', 'cls'), ('S/32', 'gap')])
def test_closed_form(name, pool):
  """Forward FLOPs of a ViT: 2 T (4 D^2 + 2 D F) + 4 T^2 D per layer, the patch embedding and the head."""
  model, c = _model(name, pool), vit.Config(**vit.size(name))
  patches = (224 // c.patch_size) ** 2
  T, D, F = patches + (pool == 'cls'), c.width, c.mlp_dim
  layer = 2 * T * (4 * D * D + 2 * D * F) + 4 * T * T * D
  closed = c.depth * layer + 2 * patches * (3 * c.patch_size**2) * D + 2 * D * 1000
  assert flops.per_example(model)[0] == closed


def test_training_is_three_forward_passes_minus_the_input_gradient_of_the_first_layer():
  model, c = _model('Ti/16'), vit.Config(**vit.size('Ti/16'))
  forward, train = flops.per_example(model)
  assert train == 3 * forward - 2 * 196 * (3 * 16 * 16) * c.width


def test_scan_and_unrolled_count_the_same_and_remat_counts_more():
  count = lambda **kwargs: flops.per_example(_model('Ti/16', execution=Execution(**kwargs)))
  assert count(scan=True) == count(scan=False)
  forward, train = count(remat='full')
  assert forward == count()[0]
  assert 1.2 * count()[1] < train < 1.34 * count()[1]


def test_a_scanned_stage_on_an_accelerator_convolves_no_picture_again():
  """What is kept there is chosen by a policy, of which convolutions are a part."""
  config, counts = resnet.Config(depths=(3,), widths=(32,), stem_width=8), {}
  for scan in (False, True):
    model = PureModel('resnet', config, (16, 16, 3), 10, Execution(scan=scan))
    with mesh_lib.tracing_for('tpu'):
      counts[scan] = flops.per_example(model)
  assert counts[False] == counts[True]


def test_matmuls_are_found_anywhere_in_a_program():
  a = jnp.ones((4, 8))
  b = jnp.ones((8, 2))
  one = 2 * 4 * 8 * 2
  assert flops.count(jnp.matmul, a, b) == one
  assert flops.count(jax.jit(lambda a, b: jax.checkpoint(jnp.matmul)(a, b)), a, b) == one
  assert flops.count(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0, None, length=5)[1], a, b) == 5 * one
  assert flops.count(lambda a, b: jax.lax.cond(True, lambda: a @ b, lambda: jnp.zeros((4, 2))), a, b) == one
  assert flops.count(jax.vmap(jnp.matmul), jnp.ones((3, 4, 8)), jnp.ones((3, 8, 2))) == 3 * one


def test_a_while_loop_is_refused():
  loop = lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, a)
  with pytest.raises(ValueError, match='while_loop'):
    flops.count(loop, jnp.ones((4, 4)))


@pytest.mark.parametrize('groups', [1, 4])
def test_convolutions(groups):
  x, kernel = jnp.ones((2, 10, 10, 8)), jnp.ones((3, 3, 8 // groups, 16))
  conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), 'VALID', feature_group_count=groups,
                                                   dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  assert flops.count(conv, x, kernel) == 2 * (2 * 8 * 8 * 16) * (3 * 3 * 8 // groups)


@pytest.mark.parametrize('kernel_size, stride, groups', [(3, 1, 1), (3, 2, 1), (1, 2, 1), (2, 2, 1), (7, 1, 8)])
def test_gradients_of_a_convolution(kernel_size, stride, groups):
  x, kernel = jnp.ones((2, 12, 12, 8)), jnp.ones((kernel_size, kernel_size, 8 // groups, 16))
  pad = (kernel_size - 1) // 2
  conv = lambda x, k: jax.lax.conv_general_dilated(
      x, k, (stride, stride), 2 * [(pad, pad)], feature_group_count=groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  both = jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k))), (0, 1))
  assert flops.count(both, x, kernel) == 3 * flops.count(conv, x, kernel)


def test_non_embedding_excludes_embeddings_and_head():
  model, c = _model('Ti/16'), vit.Config(**vit.size('Ti/16'))
  D, F = c.width, c.mlp_dim
  total, inner = flops.params(model)
  layer = 4 * D * D + 4 * D + 2 * D * F + F + D + 4 * D
  assert inner == c.depth * layer + 2 * D
  assert total == inner + (768 + 1) * D + 196 * D + D + (D + 1) * 1000


def test_of_a_partly_frozen_model_what_is_differentiated_counts():
  """A head alone costs its own gradient beside the forward pass; a part of the stack costs all that is above it."""
  model = PureModel('vit', vit.Config(patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=4, pool='gap'),
                    (8, 8, 1), 10)
  freeze = lambda *names: trainable.freezer(OptimizerConfig(train_only=names), model)
  forward, everything = flops.per_example(model)
  assert flops.per_example(model, freeze('*')) == (forward, everything)
  assert flops.per_example(model, freeze('head/*')) == (forward, forward + 2 * 32 * 10)
  assert forward + 2 * 32 * 10 < flops.per_example(model, freeze('encoder/*'))[1] < everything
