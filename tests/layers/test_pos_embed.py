import numpy as np
import pytest

from vit_jax.layers import pos_embed

TABLE = np.array([[0.125, -0.5], [1.25, 2.0], [-0.75, 0.5], [3.0, -1.5], [0.25, 1.0], [-2.0, 0.75]], np.float32)
# torch.nn.functional.interpolate(mode='bicubic', align_corners=False) of TABLE as 2 x 3, to 3 x 2 and to 1 x 4
PEERS = {
    (3, 2): [[0.276076, 0.209761], [-0.141908, 0.930617], [1.453125, -0.402832], [-0.922119, 0.911133],
             [2.630174, -1.015425], [-1.70233, 0.891649]],
    (1, 4): [[1.620819, -1.179443], [1.276245, 0.695251], [-0.105011, 1.459351], [-1.527527, 0.562195]],
}


@pytest.mark.parametrize('grid', PEERS)
def test_as_pytorch_does(grid):
  np.testing.assert_allclose(pos_embed.resized(TABLE, (2, 3), grid), PEERS[grid], atol=1e-6)


def test_the_same_grid_is_left_alone_and_what_is_even_stays_even():
  assert pos_embed.resized(TABLE, (2, 3), (2, 3)) is TABLE
  np.testing.assert_allclose(pos_embed.resized(np.full((6, 4), 0.3, np.float32), (3, 2), (8, 5)), 0.3, rtol=1e-6)


def test_stacked_tables_and_rows_apart_from_columns():
  """A slope along one side stays a slope along that side, in every table of a stack."""
  slope = np.repeat(np.arange(6, dtype=np.float32), 4)[:, None]  # 6 rows of 4
  wide = pos_embed.resized(np.stack([slope, 2 * slope]), (6, 4), (12, 2))
  assert wide.shape == (2, 24, 1)
  rows = wide[0].reshape(12, 2)
  np.testing.assert_allclose(rows[:, 0], rows[:, 1], atol=1e-6)
  np.testing.assert_allclose(rows[5:9, 0] - rows[3:7, 0], 1, atol=1e-6)
  np.testing.assert_allclose(wide[1], 2 * wide[0], atol=1e-6)
