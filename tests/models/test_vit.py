import in_turn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit

SMALL = dict(patch_size=4, width=32, depth=3, mlp_dim=48, num_heads=4)
SHAPE = (16, 24, 3)  # rectangular
POOLS, POSITIONS = ('cls', 'gap', 'map'), ('learned', 'sincos2d', 'rope2d', 'relative', 'none')


def _model(execution=Execution(), **changes):
  return PureModel('vit', vit.Config(**SMALL | changes), SHAPE, 7, execution)


def _random(model, seed=1):
  """Parameters with every leaf random: a zero head would hide the backbone."""
  leaves, tree = jax.tree.flatten(model.param_shapes())
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(tree, [0.3 * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves)])


def _images(batch=2):
  return jax.random.normal(jax.random.key(9), (batch, *SHAPE))


VARIANTS = [*(dict(pool=pool, pos_embed=position) for pool in POOLS for position in POSITIONS),
            dict(attention='local', attention_radius=2, pos_embed='rope2d'), dict(attention='linear', pool='gap'),
            dict(attention='local', attention_radius=1, pool='gap', global_tokens=2), dict(head_dim=12, num_heads=3),
            dict(stem='resnet', stem_depths=(2,), stem_width=8), dict(stem='resnet', stem_depths=(1, 2), patch_size=8)]


@pytest.mark.parametrize('changes', in_turn.slow_but(VARIANTS[::4], VARIANTS), ids=str)
def test_every_gradient_leaf_is_finite_and_non_zero(changes):
  model = _model(**changes, layer_scale=0.1)
  weights = jax.random.normal(jax.random.key(2), (2, 7))
  grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, {}, _images())[0] * weights)))(_random(model))
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path)
    assert np.isfinite(leaf).all(), name
    parts = [leaf]
    if 'qkv' in name and 'bias' in name and changes.get('attention') != 'linear':
      parts = [leaf[:, :, 0], leaf[:, :, 2]]  # softmax does not see the keys' bias
    assert all(np.abs(part).max() > 1e-7 for part in parts), name


def test_convolutional_stem():
  """Xiao et al. 2021, sec. 4: half the resolution and twice the channels at each step, then 1 x 1 up to the width."""
  model = PureModel('vit', vit.Config(**SMALL | dict(patch_size=8), stem='conv', pool='gap'), (20, 28, 3), 7)
  params = _random(model)
  assert [params['patch_embed']['convs'][i]['kernel'].shape for i in range(3)] == [(3, 3, 3, 8), (3, 3, 8, 16),
                                                                                   (3, 3, 16, 32)]
  assert params['pos_embed'].shape == (3 * 4, 32)  # 20 x 28 pixels do not divide by 8: the picture is padded
  images = jax.random.normal(jax.random.key(9), (2, 20, 28, 3))
  grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, {}, images)[0] ** 2)))(params)['patch_embed']
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)


UNROLLED = Execution(scan=False)
# Of these, only what CLS's classifier reads leaves the last of the unrolled blocks.
CLS_READS = [dict(pos_embed='relative', drop_path=0.2), dict(pos_embed='rope2d', attention='linear'),
             dict(attention='local', attention_radius=2, global_tokens=2), dict(depth=1, layer_scale=0.1)]


@pytest.mark.parametrize('execution, changes', [
    *((execution, dict(dropout=0.1, drop_path=0.2)) for execution in (
        UNROLLED, Execution(remat='dots'), Execution(remat='full'), Execution(scan=False, remat='full'))),
    *((UNROLLED, changes) for changes in CLS_READS)], ids=str)
def test_execution_changes_nothing(execution, changes):
  base, other = _model(**changes), _model(execution, **changes)
  params, keys = _random(base), jax.random.split(jax.random.key(3), 2)
  assert jax.tree.structure(base.param_shapes()) == jax.tree.structure(other.param_shapes())

  def value_and_grad(model):
    return jax.jit(jax.value_and_grad(lambda p: jnp.sum(model.apply(p, {}, _images(), keys)[0] ** 2)))(params)

  (a, grads_a), (b, grads_b) = value_and_grad(base), value_and_grad(other)
  np.testing.assert_allclose(a, b, rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4 * np.abs(x).max()), grads_a, grads_b)


def test_of_the_last_block_only_what_cls_reads_is_computed():
  """All keys and values, but one query; and so do the gradients."""
  T, D, F = 25, SMALL['width'], SMALL['mlp_dim']
  others = (T - 1) * (2 * (D * D + 2 * D * F) + 4 * T * D)  # output projection and MLP; both products of attention

  def flops_of(execution, **changes):
    model = _model(execution, **changes)
    forward = lambda p, *rest: jnp.sum(model.apply(p, {}, jnp.zeros((1, *SHAPE)), *rest)[0])
    return [flops.count(fn, model.param_shapes()) for fn in (forward, jax.grad(forward))]

  saved = lambda **changes: [a - b for a, b in zip(*(flops_of(e, **changes) for e in (Execution(), UNROLLED)))]
  assert saved() == [others, 3 * others]
  assert saved(pool='gap') == saved(pool='map') == [0, 0]
  counted = [flops.per_example(_model(execution)) for execution in (Execution(), UNROLLED)]
  assert counted[0] == counted[1], 'what is published counts all'


@pytest.mark.parametrize('position', POSITIONS)
def test_only_position_embeddings_tell_patches_apart(position):
  """Dosovitskiy et al. 2021, sec. 3.1: without them, an encoder sees a bag of patches."""
  model = _model(pool='gap', pos_embed=position)
  params, images = _random(model), _images()
  h, w, c = SHAPE
  order = np.random.default_rng(0).permutation((h // 4) * (w // 4))
  patches = images.reshape(2, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 2, 4, 5).reshape(2, -1, 4, 4, c)[:, order]
  moved = patches.reshape(2, h // 4, w // 4, 4, 4, c).transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)
  pooled = lambda x: model.apply(params, {}, x)[1]['pre_logits']
  difference = np.abs(pooled(images) - pooled(moved)).max()
  assert difference < 1e-5 if position == 'none' else difference > 1e-3


def test_relative_biases_are_added_to_the_logits_of_patches():
  """Against the bias written out place by place: [h, w, h, w], CLS has none."""
  params, captured = _random(model := _model(pos_embed='relative', depth=1)), ('attention',)
  with_bias = np.log(model.apply(params, {}, _images(), capture=captured)[1]['attention'][0])
  table = params['encoder']['blocks']['attention'].pop('bias_table')[0]  # [7 * 11, H]
  without = np.log(_model(pos_embed='none', depth=1).apply(params, {}, _images(), capture=captured)[1]['attention'][0])
  bias = np.zeros((4, 25, 25), np.float32)
  for i in range(24):
    for j in range(24):
      down, right = i // 6 - j // 6, i % 6 - j % 6
      bias[:, 1 + i, 1 + j] = table[(down + 3) * 11 + right + 5]
  centred = lambda x: x - x.mean(-1, keepdims=True)
  np.testing.assert_allclose(centred(with_bias), centred(without + bias), rtol=0, atol=1e-4)


def test_attention_without_weights_says_so():
  for attention in ('local', 'linear'):
    model = _model(attention=attention)
    with pytest.raises(UserError, match=f'model.attention={attention} never makes'):
      model.apply(_random(model), {}, _images(), capture=('attention',))


def test_global_tokens_are_not_pooled():
  """The mean over patches leaves them out, so that without attention they change nothing."""
  model = _model(pool='gap', global_tokens=2, depth=1)
  params = _random(model)
  params['encoder']['blocks']['attention']['out'] = jax.tree.map(
      jnp.zeros_like, params['encoder']['blocks']['attention']['out'])
  other = params | {'global_tokens': params['global_tokens'] + 1}
  np.testing.assert_allclose(model.apply(params, {}, _images())[0], model.apply(other, {}, _images())[0], rtol=1e-6)


def test_rope_depends_on_relative_places_only():
  from vit_jax.layers import pos_embed
  angles = pos_embed.rope2d_angles((5, 6), 16).reshape(5, 6, 8)
  q, k = jax.random.normal(jax.random.key(0), (2, 16))

  def score(at_q, at_k):
    turn = lambda t, place: pos_embed.rotate(t[None, None, None], angles[place][None])[0, 0, 0]
    return float(turn(q, at_q) @ turn(k, at_k))

  assert score((0, 0), (1, 2)) == pytest.approx(score((3, 3), (4, 5)), abs=1e-5)
  assert score((0, 0), (1, 2)) != pytest.approx(score((0, 0), (2, 1)), abs=1e-3)


def test_attention_logits_of_wider_heads():
  """Yang et al. 2022, def. 4.1: 1/K, equal to 1/sqrt(K) at the base."""
  params = _random(_model())
  weights = lambda **changes: _model(**changes).apply(params, {}, _images(), capture=('attention',))[1]['attention'][0]
  np.testing.assert_array_equal(weights(), weights(base_head_dim=8))  # the heads' size
  logits, smaller = np.log(weights()), np.log(weights(base_head_dim=2))
  centred = lambda x: x - x.mean(-1, keepdims=True)
  np.testing.assert_allclose(centred(smaller), centred(logits) / 2, rtol=0, atol=1e-4)


def test_intermediates_on_demand():
  model = _model(pool='cls')
  logits, captured, _ = model.apply(_random(model), {}, _images(), capture=('features', 'attention'))
  assert captured['features'].shape == (3, 2, 25, 32) and captured['attention'].shape == (3, 2, 4, 25, 25)
  np.testing.assert_allclose(captured['attention'].sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(logits, model.apply(_random(model), {}, _images())[0], rtol=1e-5, atol=1e-5)


def test_intermediates_cost_nothing_when_not_asked_for():
  model = _model()
  memory = lambda capture: jax.jit(lambda p, x: model.apply(p, {}, x, capture=capture)).lower(
      model.param_shapes(), jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)).compile().memory_analysis()
  plain, captured = memory(()), memory(('attention',))
  assert captured.output_size_in_bytes - plain.output_size_in_bytes >= 3 * 2 * 4 * 25 * 25 * 4
  assert plain.output_size_in_bytes < 2000  # logits and pre_logits


def test_bfloat16_stays_close_to_float32():
  """float32 parameters and logits; the forward pass within 2e-2 of the largest logit."""
  a, b = _model(), _model(dtype='bfloat16')
  params = a.init(jax.random.key(0))[0]
  params['head']['kernel'] = jax.random.normal(jax.random.key(1), params['head']['kernel'].shape)
  x, y = (m.apply(params, {}, _images(8))[0] for m in (a, b))
  assert y.dtype == jnp.float32
  assert np.abs(x - y).max() < 2e-2 * np.abs(x).max()
  assert np.abs(x - y).max() > 0


def test_logits_are_zero_at_the_start():
  model = _model()
  params, stats = model.init(jax.random.key(0))
  assert not np.any(model.apply(params, stats, _images())[0])


def test_noise_belongs_to_the_example_not_to_the_batch():
  model = _model(dropout=0.3, drop_path=0.3)
  params, images, keys = _random(model), _images(4), jax.random.split(jax.random.key(5), 4)
  whole = model.apply(params, {}, images, keys)[0]
  halves = [model.apply(params, {}, images[i:i + 2], keys[i:i + 2])[0] for i in (0, 2)]
  np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-4, atol=1e-4)
  assert np.abs(whole - model.apply(params, {}, images)[0]).max() > 1e-2


def test_stochastic_depth_drops_whole_branches_and_keeps_the_mean():
  from vit_jax.layers import noise
  keys = jax.random.split(jax.random.key(0), 4000)
  y = noise.drop_path(jnp.ones((4000, 2, 3)), 0.25, keys)
  per_example = y.reshape(4000, -1)
  assert ((per_example == 0).all(1) | (per_example == 1 / 0.75).all(1)).all()
  assert abs(float(y.mean()) - 1) < 0.05


@pytest.mark.parametrize('changes, message', [
    (dict(patch_size=5), r'model\.patch_size=5 does not divide the image of 16x24: set data\.image_size to \(15, 20\)'),
    (dict(stem='conv', patch_size=6), r'model\.patch_size=6: stem=conv .* a power of two'),
    (dict(stem='conv', patch_size=8, width=38, num_heads=2), r'model\.width=38: .* a multiple of 4'),
    (dict(num_heads=5), r'model\.num_heads=5 does not divide model\.width=32'),
    (dict(width=30, num_heads=2, pos_embed='sincos2d'), 'multiple of 4'),
    (dict(num_heads=16, pos_embed='rope2d'), 'multiple of 4 per head'),
    (dict(depth=0), r'model\.depth=0'),
    (dict(head_dim=0), r'model\.head_dim=0: must be from 1 to'),
    (dict(attention_radius=0), r'model\.attention_radius=0'),
    (dict(attention='local', attention_radius=7), r'model\.attention_radius=7: must be at most 6'),
    (dict(attention='linear', pos_embed='relative'), 'attention=full only, not of linear'),
    (dict(attention='linear', base_head_dim=8), r'model\.base_head_dim=8: attention=linear has no logits'),
    (dict(stem='resnet'), r'model\.patch_size=4: 4 stages .* 32 x 32 pixels: set 32'),
    (dict(stem='resnet', stem_width=48), r'model\.stem_width=48: .* a multiple of 32'),
    (dict(stem='resnet', stem_depths=(2, 0)), r'model\.stem_depths=\(2, 0\)'),
    (dict(dropout=1.0), r'model\.dropout=1\.0'),
])
def test_shapes_that_cannot_be_built(changes, message):
  with pytest.raises(UserError, match=message):
    _model(**changes)


@pytest.mark.parametrize('name', ['B/x', 'B16', 'Q/16', 'R50+B/32'])
def test_unknown_sizes(name):
  with pytest.raises(UserError, match='expected SIZE/PATCH|no such published hybrid'):
    vit.size(name)
