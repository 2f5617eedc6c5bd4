"""Formats of other programs that have no place for what a model is say so, and name one that has."""

import jax
import pytest

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import writers
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel, vit


@pytest.mark.parametrize('changes, to, message', [
    (dict(pool='gap'), 'hf', "model.pool: transformers expects 'cls' in a vit, got 'gap'; try --to=timm"),
    (dict(pool='map'), 'hf', "model.pool: transformers expects 'cls' in a vit, got 'map'; try --to=timm"),
    (dict(pool='gap'), 'npz', "model.gelu: the original code expects 'tanh', got 'exact'; try --to=timm"),
    (dict(pool='map', gelu='tanh'), 'npz', "model.pool: the original code expects 'cls' or 'gap', got 'map'"),
])
def test_a_recipes_own_vit(tmp_path, changes, to, message):
  """Most recipes pool by the mean, which transformers' ViT does not have."""
  config = dict(patch_size=4, width=16, depth=1, mlp_dim=24, num_heads=2) | changes
  params, stats = PureModel('vit', vit.Config(**config), (8, 8, 3), 3).init(jax.random.key(0))
  weights = Weights('mine', 'vit', config, params, stats, Preprocessing((8, 8)), ('a', 'b', 'c'))
  with pytest.raises(UserError) as error:
    writers.write(weights, tmp_path / 'out', to)
  assert message in str(error.value) and not list(tmp_path.rglob('*.*'))
