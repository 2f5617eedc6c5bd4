import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vit_jax.data import device_augment as da
from vit_jax.data.config import Augment

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_dtype_promotion('strict'), jax.numpy_rank_promotion('raise'):
    yield


def batch(n=256, shape=(10, 12, 3)):
  return np.random.default_rng(0).integers(1, 256, (n, *shape), np.uint8)


def one_hot(n, classes=5):
  return np.eye(classes, dtype=np.float32)[np.arange(n) % classes]


def test_normalize():
  np.testing.assert_allclose(da.normalize(np.array([[[[0], [255], [51]]]], np.uint8))[0, 0, :, 0], [-1, 1, -0.6],
                             atol=1e-6)
  np.testing.assert_array_equal(da.augment(Augment())(KEY, batch(4), one_hot(4))[0], da.normalize(batch(4)))


def test_flip_equals_numpy():
  images = batch()
  flipped = np.asarray(jax.jit(da.Flip())(KEY, images))
  mirrored = np.array([(out == image[:, ::-1]).all() for out, image in zip(flipped, images)])
  same = np.array([(out == image).all() for out, image in zip(flipped, images)])
  assert (mirrored ^ same).all() and 90 < mirrored.sum() < 166


@pytest.mark.parametrize('shape', [(10, 12, 3), (8, 8, 1)])
def test_pad_crop_equals_numpy(shape):
  images, pad = batch(200, shape), 2
  cropped = np.asarray(jax.jit(da.PadCrop(pad))(KEY, images))
  padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  H, W, _ = shape
  found = []
  for out, wide in zip(cropped, padded):
    matches = [(y, x) for y in range(2 * pad + 1) for x in range(2 * pad + 1)
               if (wide[y:y + H, x:x + W] == out).all()]
    assert len(matches) == 1
    found += matches
  assert len(set(found)) == 25  # every corner is reached


def test_random_erasing():
  images = np.zeros((400, 20, 30, 3), np.uint8)
  erased = np.asarray(jax.jit(da.RandomErasing(0.5))(KEY, images))
  holes = (erased != 0).any(-1)  # noise is 0 in all three channels once in 16 million pixels
  share = holes.mean((1, 2))
  assert 150 < (share > 0).sum() < 250
  assert share.max() < 0.37 and 0.1 < share[share > 0].mean() < 0.22
  for hole in holes[share > 0]:
    y, x = np.nonzero(hole)
    assert hole.sum() == (y.max() - y.min() + 1) * (x.max() - x.min() + 1)  # one box
  noise = erased[holes]
  assert abs(noise.mean() - 127.5) < 1 and abs(noise.std() - 73.9) < 1


def mixed(mix, n=64, weights=None):
  images = np.random.default_rng(1).normal(size=(n, 12, 16, 3)).astype(np.float32)
  weights = np.ones(n, np.float32) if weights is None else weights
  out, targets = jax.jit(mix)(KEY, images, one_hot(n), weights)
  return images, np.asarray(out), np.asarray(targets)


def lambdas(targets):
  return targets[np.arange(len(targets)), np.arange(len(targets)) % 5]


def test_mixup_is_a_convex_combination_with_the_next_row():
  images, out, targets = mixed(da.Mix(mixup=1.0))
  lam = lambdas(targets)
  expected = lam[:, None, None, None] * images + (1 - lam)[:, None, None, None] * np.roll(images, -1, 0)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  np.testing.assert_allclose(targets, lam[:, None] * one_hot(64) + (1 - lam)[:, None] * np.roll(one_hot(64), -1, 0),
                             atol=1e-6)
  assert (targets >= 0).all() and np.allclose(targets.sum(1), 1, atol=1e-6)
  assert len(np.unique(lam)) == 64 and lam.min() < 0.15 and lam.max() > 0.85  # Beta(1, 1) is uniform


def test_small_alpha_mixes_little():
  lam = lambdas(mixed(da.Mix(mixup=0.1), n=400)[2])
  assert (np.minimum(lam, 1 - lam) < 0.05).mean() > 0.5


@pytest.mark.parametrize('alpha', [0.2, 1.0, 3.0])
def test_lambdas_follow_the_beta_distribution(alpha):
  lam = np.asarray(da._draw(KEY, da._beta_quantiles(alpha), 5000))
  assert scipy.stats.kstest(lam, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_pastes_one_box_and_weighs_labels_by_its_area():
  images, out, targets = mixed(da.Mix(cutmix=1.0), n=128)
  partner = (out == np.roll(images, -1, 0)).all(-1)
  own = (out == images).all(-1)
  assert (partner ^ own).all()
  np.testing.assert_allclose(lambdas(targets), own.mean((1, 2)), atol=1e-6)
  assert np.allclose(targets.sum(1), 1, atol=1e-6) and 0.4 < own.mean() < 0.8
  for hole in partner[partner.any((1, 2))]:
    y, x = np.nonzero(hole)
    assert hole.sum() == (y.max() - y.min() + 1) * (x.max() - x.min() + 1)


def test_mixup_and_cutmix_share_the_batch():
  images, out, targets = mixed(da.Mix(mixup=1.0, cutmix=1.0), n=200)
  cut = np.array([((o == a) | (o == b)).all() for o, a, b in zip(out, images, np.roll(images, -1, 0))])
  assert 70 < cut.sum() < 130 and np.allclose(targets.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize('mix', [da.Mix(mixup=1.0), da.Mix(cutmix=1.0), da.Mix(mixup=1.0, cutmix=1.0)])
def test_rows_of_weight_0_are_not_mixed_into_others(mix):
  weights = np.ones(64, np.float32)
  weights[[5, 6, 63]] = 0
  images = np.random.default_rng(1).normal(size=(64, 12, 16, 3)).astype(np.float32)
  targets, other_images, other_targets = one_hot(64), images.copy(), one_hot(64)
  other_images[weights == 0], other_targets[weights == 0] = 1e9, 7
  a = jax.jit(mix)(KEY, images, targets, weights)
  b = jax.jit(mix)(KEY, other_images, other_targets, weights)
  real = weights > 0
  for x, y in zip(a, b):
    np.testing.assert_array_equal(np.asarray(x)[real], np.asarray(y)[real])
  np.testing.assert_array_equal(np.asarray(a[0])[4], images[4])  # its partner is missing: unchanged
  assert (np.asarray(a[0])[7] != images[7]).any()


def test_a_row_does_not_depend_on_the_sharding():
  everything = Augment(crop='pad', flip=True, random_erasing=0.5, mixup=0.5, cutmix=1.0)
  images, targets = batch(64), one_hot(64)
  fn = jax.jit(da.augment(everything))
  alone = fn(KEY, images, targets, np.ones(64, np.float32))
  mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.P('data'))
  spread = fn(KEY, *jax.device_put((images, targets, np.ones(64, np.float32)), sharding))
  for a, b in zip(alone, spread):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert spread[0].dtype == jnp.float32 and np.abs(np.asarray(alone[0])).max() <= 1.001


def test_options_are_independent():
  images, targets = batch(64), one_hot(64)
  with_mix = jax.jit(da.augment(Augment(flip=True, mixup=1.0)))(KEY, images, targets, np.zeros(64, np.float32))[0]
  without = jax.jit(da.augment(Augment(flip=True)))(KEY, images, targets)[0]
  np.testing.assert_array_equal(with_mix, without)  # with weight 0 everywhere, nothing is mixed and flips are the same
