"""The losses of all pairs: ring and tiles equal the dense form, and the formulas of transformers and OpenCLIP."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.cost import flops
from vit_jax.objectives import pair_loss as pairs
from vit_jax.objectives.pair_loss import caption_hash, pair_loss
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig, make_mesh

MESHES = {1: (1, 1, 1), 2: (1, 2, 1), 4: (2, 1, 2), 8: (4, 2, 1)}
SCALE, BIAS = np.float32(3), np.float32(-2)


def _embeddings(batch, width=6, seed=0):
  x = np.random.default_rng(seed).standard_normal((2, batch, width)).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _tokens(batch):
  """Captions, of which some are equal."""
  tokens = np.random.default_rng(1).integers(1, 50, (batch, 4)).astype(np.int32)
  tokens[batch // 2:batch // 2 + 3] = tokens[1]
  return tokens


def _dense(kind, images, texts, same, weight, scale, bias):
  """The definition, with all logits at once, in float64."""
  logits = scale * images @ texts.T + bias
  if kind == 'sigmoid':
    return jnp.sum(jnp.logaddexp(0.0, jnp.where(same, -logits, logits)) * weight[None], axis=1)

  def one(logits, same):
    log_p = logits - jnp.log(jnp.sum(jnp.exp(logits) * weight[None], axis=1, keepdims=True))
    wanted = same * weight[None]
    return -jnp.sum(log_p * wanted, axis=1) / jnp.maximum(jnp.sum(wanted, axis=1), 1e-9)

  return (one(logits, same) + one(logits.T, same.T)) / 2


def _value_and_grad(loss, weight):
  def mean(images, texts, scale, bias):
    shares = loss(images, texts, scale, bias)
    return jnp.sum(shares * weight.astype(shares.dtype)) / weight.sum().astype(shares.dtype), shares
  return jax.value_and_grad(mean, argnums=(0, 1, 2, 3), has_aux=True)


@functools.cache
def _expected(kind, batch):
  tokens, weight = _tokens(batch), _weight(batch)
  same = (tokens[:, None] == tokens[None]).all(-1)
  with jax.enable_x64(True):
    images, texts, scale, bias = (jnp.asarray(a, jnp.float64) for a in (*_embeddings(batch), SCALE, BIAS))
    fn = _value_and_grad(lambda *args: _dense(kind, *args[:2], same, weight.astype(np.float64), *args[2:]), weight)
    return jax.device_get(fn(images, texts, scale, bias))


def _weight(batch):
  return (np.arange(batch) % 7 != 3).astype(np.float32)


@pytest.mark.parametrize('kind, devices', [
    pytest.param(kind, devices, marks=[pytest.mark.slow] if (kind, devices) in (('sigmoid', 2), ('softmax', 4)) else [])
    for kind in ('sigmoid', 'softmax') for devices in MESHES])
def test_ring_and_tiles_equal_the_dense_form(kind, devices, monkeypatch):
  monkeypatch.setattr(pairs, 'TILE', 5)  # of 48, 24, 24 and 6 rows on a device: tiles that divide them and that do not
  mesh, weight = make_mesh(MeshConfig(*MESHES[devices]), jax.devices()[:devices]), _weight(48)
  rows = [jax.device_put(a, mesh_lib.sharding(mesh, 'batch')) for a in (*_embeddings(48), _tokens(48), weight)]

  def loss(images, texts, scale, bias):
    return pair_loss(kind, images, texts, caption_hash(rows[2]), rows[3], scale, bias)

  fn = jax.jit(mesh_lib.traced_on(mesh, _value_and_grad(loss, rows[3])))
  (value, shares), grads = jax.device_get(fn(*rows[:2], SCALE, BIAS))
  (expected, expected_shares), expected_grads = _expected(kind, 48)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(shares[weight > 0], expected_shares[weight > 0], rtol=1e-6)
  for ours, theirs in zip(grads[:3 if kind == 'softmax' else 4], expected_grads):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(np.abs(theirs).max(), 1))
    assert not np.shape(ours) or (np.abs(ours[weight > 0]).max(1) > 1e-4).all()
  assert kind == 'sigmoid' or abs(grads[3]) < 1e-6  # a bias of all logits changes nothing


@pytest.mark.parametrize('devices', [1, 8])
def test_slices_of_pictures_among_all_texts_sum_to_the_whole(devices, monkeypatch):
  monkeypatch.setattr(pairs, 'TILE', 5)
  mesh, weight, tokens = make_mesh(MeshConfig(*MESHES[devices]), jax.devices()[:devices]), _weight(48), _tokens(48)
  rows = mesh_lib.sharding(mesh, 'batch')
  captions, embeddings = caption_hash(tokens), [jax.device_put(a, rows) for a in _embeddings(48)]
  side = lambda x, at: {'embedding': x[at], 'caption': captions[at], 'weight': weight[at]}

  def sum_of_slices(images, texts, scale, bias):
    each = [pairs.loss_among('sigmoid', side(images, np.s_[at::3]), side(texts, np.s_[:]), scale, bias)
            for at in range(3)]
    return jnp.stack(each, axis=1).reshape(-1)

  fn = jax.jit(mesh_lib.traced_on(mesh, _value_and_grad(sum_of_slices, weight)))
  (value, _), grads = jax.device_get(fn(*embeddings, SCALE, BIAS))
  (expected, _), expected_grads = _expected('sigmoid', 48)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  for ours, theirs in zip(grads, expected_grads):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(np.abs(theirs).max(), 1))


@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_what_has_no_weight_does_not_count(kind):
  """Whatever it is: as if it were not there."""
  (images, texts), tokens = _embeddings(6), _tokens(6)
  weight = np.array([1, 1, 1, 1, 0, 0], np.float32)
  images[4:] = 1e20

  def values(count):
    fn = lambda x, y: jnp.sum(weight[:count] * pair_loss(
        kind, x, y, caption_hash(tokens[:count]), weight[:count], SCALE, BIAS))
    return jax.value_and_grad(fn, argnums=(0, 1))(images[:count], texts[:count])

  (some, some_grads), (every, every_grads) = values(4), values(6)
  np.testing.assert_allclose(every, some, rtol=1e-6)
  for ours, theirs in zip(every_grads, some_grads):
    np.testing.assert_allclose(ours[:4], theirs, atol=1e-6)
    assert not np.any(ours[4:])


def test_published_numbers():
  """Computed with torch 2.13 by the formulas of `_torch_losses`, from numbers that anyone can make."""
  x, y = (np.sin(np.arange(12, dtype=np.float32) * step).reshape(4, 3) for step in (1.0, 1.7))
  x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
  captions = caption_hash(np.arange(1, 5, dtype=np.int32)[:, None])
  value = lambda kind, scale, bias: float(jnp.mean(pair_loss(kind, x, y, captions, jnp.ones(4), np.float32(scale),
                                                             np.float32(bias))))
  assert value('sigmoid', 10, -10) == pytest.approx(GOLDEN['sigmoid'], rel=1e-6)
  assert value('softmax', 1 / 0.07, 0) == pytest.approx(GOLDEN['softmax'], rel=1e-6)


GOLDEN = {'sigmoid': 8.185914993286133, 'softmax': 6.976282596588135}


def _torch_losses(images, texts, scale, bias):
  """transformers' SiglipModel (and OpenCLIP's SigLipLoss, which sums the same), and OpenCLIP's ClipLoss."""
  import torch
  from torch.nn import functional as F
  logits, count = scale * images @ texts.T + bias, len(images)
  sigmoid = -F.logsigmoid((2 * torch.eye(count) - 1) * logits).sum(-1).mean()
  labels = torch.arange(count)
  return {'sigmoid': sigmoid, 'softmax': (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2}


@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_live_torch(kind):
  torch = pytest.importorskip('torch')
  arrays = *_embeddings(20), SCALE, BIAS
  tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
  loss = _torch_losses(*tensors)[kind]
  loss.backward()
  captions = caption_hash(np.arange(1, 21, dtype=np.int32)[:, None])
  ones = jnp.ones(20)
  (value, _), grads = _value_and_grad(lambda x, y, *rest: pair_loss(kind, x, y, captions, ones, *rest), ones)(*arrays)
  assert float(value) == pytest.approx(float(loss), rel=1e-6)
  for ours, theirs in zip(grads, tensors):
    np.testing.assert_allclose(ours, theirs.grad, atol=1e-6)


def test_equal_captions_have_equal_hashes():
  tokens = np.array([[5, 6, 0, 0], [5, 6, 0, 0], [6, 5, 0, 0], [5, 0, 0, 0], [5, 6, 6, 0], [0, 0, 0, 0]])
  exclaimed = np.array([[7, 0, 9, 0], [7, 9, 0, 0], [0, 7, 9, 0]], np.int32)  # 0 is a token of CLIP: '!'
  assert len(np.unique(np.asarray(caption_hash(exclaimed)), axis=0)) == 3
  first, padded = (np.asarray(caption_hash(a)) for a in (tokens, np.pad(tokens, ((0, 0), (0, 3)))))
  np.testing.assert_array_equal(first, padded)
  assert len({tuple(row) for row in first}) == 5 and (first[0] == first[1]).all()
  every = np.random.default_rng(0).integers(1, 3, (2**15, 16))  # of two tokens: nearly alike
  assert len(np.unique(np.asarray(caption_hash(every)), axis=0)) == len(np.unique(every, axis=0))


def test_nothing_holds_all_pairs():
  """The largest array of the program, and its FLOPs: 2 B^2 E forward and 6 backward."""
  batch, width = 4 * pairs.TILE, 8
  arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (
      ((batch, width), jnp.float32), ((batch, width), jnp.float32), ((batch, 2), jnp.uint32), ((batch,), jnp.float32))]
  fn = jax.grad(lambda *rows: jnp.sum(pair_loss('softmax', *rows, SCALE, np.float32(0))), argnums=(0, 1))
  sizes = []

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      sizes.extend(variable.aval.size for variable in equation.outvars)
      for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
          if hasattr(item := getattr(item, 'jaxpr', item), 'eqns'):
            walk(item)

  walk(jax.make_jaxpr(fn)(*arrays).jaxpr)
  assert max(sizes) == pairs.TILE**2
  assert flops.count(fn, *arrays) == 8 * batch**2 * width
