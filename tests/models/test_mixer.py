import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import random

from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.models import PureModel, mixer

# Millions of parameters without the head (Tolstikhin et al. 2021, table 1).
PUBLISHED = {'S/32': 19, 'S/16': 18, 'B/32': 60, 'B/16': 59, 'L/32': 206, 'L/16': 207, 'H/14': 431}
SMALL = dict(patch_size=4, width=16, depth=2, tokens_mlp_dim=12, mlp_dim=24)
SHAPE = (8, 12, 3)


@pytest.mark.parametrize('name', mixer.SIZES)
def test_published_sizes(name):
  config = mixer.Config(**mixer.size(name))
  total, _ = flops.params(PureModel('mixer', config, (224, 224, 3), 1000))
  assert round((total - 1000 * (config.width + 1)) / 1e6) == PUBLISHED[name]
  assert config != mixer.Config() or name == 'S/16'


def test_logits_are_those_of_the_papers_equations():
  """Eq. 1 of Tolstikhin et al. 2021, written out over plain arrays; GELU by tanh, as in the published code."""
  model = PureModel('mixer', mixer.Config(**SMALL), SHAPE, 5)
  p, images = random(model.param_shapes()), jax.random.normal(jax.random.key(0), (3, *SHAPE))

  def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']

  def mlp(p, x):
    h = x @ p['up']['kernel'] + p['up']['bias']
    h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return h @ p['down']['kernel'] + p['down']['bias']

  patches = np.asarray(images, np.float64).reshape(3, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 6, 48)
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    x = patches @ p['patch_embed']['proj']['kernel'] + p['patch_embed']['proj']['bias']
    for layer in range(2):
      block = jax.tree.map(lambda leaf: np.asarray(leaf[layer], np.float64), p['stack']['blocks'])  # noqa: B023
      x = x + mlp(block['token_mixing'], norm(block['norm1'], x).swapaxes(1, 2)).swapaxes(1, 2)
      x = x + mlp(block['channel_mixing'], norm(block['norm2'], x))
    expected = norm(p['norm'], x).mean(1) @ p['head']['kernel'] + p['head']['bias']
  got, captured, _ = jax.jit(lambda p, x: model.apply(p, {}, x, capture=('features',)))(p, images)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(captured['features'][-1], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('changes, message', [
    (dict(patch_size=5), r'model\.patch_size=5 does not divide the image of 8x12'),
    (dict(tokens_mlp_dim=0), r'model\.tokens_mlp_dim=0: must be from 1 to'),
    (dict(drop_path=1.0), r'model\.drop_path=1\.0: must be at least 0 and below 1')])
def test_shapes_that_cannot_be_built(changes, message):
  with pytest.raises(UserError, match=message):
    PureModel('mixer', mixer.Config(**SMALL | changes), SHAPE, 5)


def test_sizes_and_pictures_that_do_not_exist():
  with pytest.raises(UserError, match=r"Mixer size 'S/8': no such published size; known: B/16"):
    mixer.size('S/8')
  params = {'head': jnp.zeros(3)}
  assert mixer.resized(params, mixer.Config(), (8, 12, 3), (8, 12, 1)) is params
  with pytest.raises(UserError, match=r'of 8x12 cannot read pictures of 16x12: set data.image_size to \(8, 12\)'):
    mixer.resized(params, mixer.Config(), (8, 12, 3), (16, 12, 3))
