"""The rules of ladders: exact if the ladder is regular, through its rungs if it is not."""

import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.sweeps import ladder


def models(widths, depth, mlp, heads):
  return [dict(width=w, depth=depth(w), mlp_dim=mlp(w), num_heads=heads(w), patch_size=4) for w in widths]


def test_fields_stay_constant_or_proportional():
  rungs = ladder.read(models((192, 384, 768), lambda w: 12, lambda w: 4 * w, lambda w: w // 64))
  assert (rungs.dial, rungs.step) == ('width', 64)  # finer than the runs' own 192, and heads stay 64 wide
  for rung in (1, 5, 100):
    assert rungs.shape(rung) == {'width': 64 * rung, 'depth': 12, 'mlp_dim': 256 * rung, 'num_heads': rung}


def test_depth_follows_its_power_law_between_and_beyond_the_rungs():
  widths = (64, 128, 256)
  rungs = ladder.read(models(widths, lambda w: w // 16, lambda w: 4 * w, lambda w: 4))
  assert rungs.step % 4 == 0
  for width in (*widths, 192, 1024):
    assert rungs.shape(width // rungs.step)['depth'] == width // 16


def test_an_irregular_ladder_keeps_its_rungs_and_its_heads_divide_the_width():
  table = {32: (3, 96, 2), 48: (3, 128, 3), 96: (5, 288, 3), 160: (6, 512, 5)}
  rungs = ladder.read(models(table, *(lambda w, i=i: table[w][i] for i in range(3))))
  for width, (depth, mlp_dim, heads) in table.items():
    assert rungs.shape(width // rungs.step) == {'width': width, 'depth': depth, 'mlp_dim': mlp_dim, 'num_heads': heads}
  for rung in range(1, 60):
    shape = rungs.shape(rung)
    assert shape['width'] % shape['num_heads'] == 0 and shape['mlp_dim'] % 32 == 0


def test_a_ladder_of_depths():
  rungs = ladder.read([dict(width=64, depth=d, mlp_dim=128, num_heads=4) for d in (2, 4, 8)])
  assert rungs.shape(3) == {'depth': 3, 'mlp_dim': 128, 'num_heads': 4}
  with pytest.raises(UserError, match='do not form a ladder: none of model.width, model.depth'):
    ladder.read([dict(width=64, depth=2, mlp_dim=128, num_heads=4)] * 3)


@pytest.mark.parametrize('by_length', [0.0, -0.3])
def test_learning_rates_follow_size_and_length(by_length):
  width, examples = (a.ravel().astype(float) for a in np.meshgrid([16, 32, 64], [1e4, 1e5, 1e6]))
  rule = ladder.rate_rule('width', width, examples, 0.2 / width * examples ** by_length, np.ones(9))
  assert (rule.by_dial, rule.by_examples) == (pytest.approx(-1), pytest.approx(by_length))
  assert rule(128, 1e7) == pytest.approx(0.2 / 128 * 1e7 ** by_length) and rule.off < 1e-9


def test_a_constant_learning_rate_stays_exact():
  rule = ladder.rate_rule('width', np.array([16, 32.0]), np.array([1e4, 1e5]), np.array([3e-3, 3e-3]), np.ones(2))
  assert rule(512, 1e9) == 3e-3 and rule.words() == '0.003, as in all the best runs'
