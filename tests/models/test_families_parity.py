"""Our CNNs, DeiT and Swin compute what transformers' classes compute from the same parameters and statistics.

Always: from the files that tests/golden/make_families_golden.py wrote. Live, with fresh random models of other shapes:
where torch and transformers are installed.
"""

import functools
import json
import pathlib
import runpy
import types

import jax
import numpy as np
import pytest
from flax import traverse_util

from vit_jax.layers.stack import Execution
from vit_jax.models import FAMILIES, PureModel

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
CASES = ['resnet-basic', 'resnet-bottleneck', 'resnet-regnet_y', 'convnext-two_stages', 'deit-tall', 'swin-padded',
         'swin-one_window']
TOLERANCE = 1e-4  # largest absolute difference, of values of about 1, in float32

LIVE = {
    'resnet-bottleneck': ('ResNet', dict(num_channels=1, num_labels=5, layer_type='bottleneck', embedding_size=16,
                                         hidden_sizes=[32, 48, 64, 96], depths=[1, 2, 3, 1]), (64, 64)),
    'resnet-regnet_y': ('RegNet', dict(num_channels=3, num_labels=5, layer_type='y', embedding_size=16,
                                       hidden_sizes=[24, 40, 64], depths=[2, 1, 3], groups_width=8), (64, 48)),
    'convnext-three': ('ConvNext', dict(num_channels=1, num_labels=5, hidden_sizes=[16, 24, 48], depths=[1, 2, 2],
                                        num_stages=3, patch_size=2, layer_scale_init_value=0.1, layer_norm_eps=1e-6),
                       (32, 32)),
    'swin-four': ('Swin', dict(num_channels=3, num_labels=5, image_size=[96, 130], embed_dim=16, depths=[2, 2, 4, 2],
                               num_heads=[2, 4, 4, 8], window_size=3, patch_size=4), (96, 130)),
}


def our_model(case: str, theirs: dict, size: tuple[int, int], execution: Execution = Execution()) -> PureModel:
  """The model of ours that the arguments of transformers' config describe."""
  family = case.partition('-')[0]
  if family == 'deit':
    config = FAMILIES[family].config(
        patch_size=theirs['patch_size'], width=theirs['hidden_size'], depth=theirs['num_hidden_layers'],
        mlp_dim=theirs['intermediate_size'], num_heads=theirs['num_attention_heads'])
    return PureModel(family, config, (*size, theirs['num_channels']), theirs['num_labels'], execution)
  fields = dict(depths=tuple(theirs['depths']))
  if family == 'swin':
    fields |= dict(width=theirs['embed_dim'], num_heads=tuple(theirs['num_heads']), window_size=theirs['window_size'],
                   patch_size=theirs['patch_size'])
  else:
    fields |= dict(widths=tuple(theirs['hidden_sizes']))
  if family == 'convnext':
    fields |= dict(patch_size=theirs['patch_size'])
  if family == 'resnet':
    fields |= dict(stem_width=theirs['embedding_size'])
    if theirs['layer_type'] == 'y':
      fields |= dict(stem='half', bottleneck=1, group_width=theirs['groups_width'], squeeze_excite=True)
    else:
      fields |= dict(block=theirs['layer_type'])
  config = FAMILIES[family].config(**fields)
  return PureModel(family, config, (*size, theirs['num_channels']), theirs['num_labels'], execution)


class Converter:
  """Our trees from transformers' tensors (names of transformers 5.23), each of which must be used.

  Kernels are transposed: convolutions [out, in, k, k] -> [k, k, in, out], Linear [out, in] -> [in, out].
  """

  def __init__(self, tensors: dict[str, np.ndarray], theirs: dict):
    self.left, self.theirs, self.stats = dict(tensors), theirs, {}

  def params_and_stats(self, family: str) -> tuple[dict, dict]:
    params = getattr(self, f'_{family}')()
    params['head'] = self.affine({'resnet': 'classifier.1', 'deit': 'cls_classifier'}.get(family, 'classifier'))
    assert not self.left, f'tensors that nothing of ours uses: {sorted(self.left)}'
    if family != 'resnet':
      return params, {}
    is_stat = lambda path: path[-1] in ('mean', 'var')
    flat = traverse_util.flatten_dict(params)
    both = [traverse_util.unflatten_dict({path: v for path, v in flat.items() if is_stat(path) == wanted})
            for wanted in (False, True)]
    return tuple(both)

  def affine(self, name):
    weight = self.left.pop(f'{name}.weight')
    bias = {'bias': self.left.pop(f'{name}.bias')} if f'{name}.bias' in self.left else {}
    return {'kernel': weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, **bias}

  def norm(self, name):
    return {'scale': self.left.pop(f'{name}.weight'), 'bias': self.left.pop(f'{name}.bias')}

  def batch_norm(self, name):
    return self.norm(name) | {'mean': self.left.pop(f'{name}.running_mean'),
                              'var': self.left.pop(f'{name}.running_var')}

  def conv_norm(self, name):
    return {'conv': self.affine(f'{name}.convolution'), 'norm': self.batch_norm(f'{name}.normalization')}

  def _resnet(self):
    kind = 'regnet' if self.theirs['layer_type'] == 'y' else 'resnet'
    convs = {'y': (0, 1, 3), 'basic': (0, 1), 'bottleneck': (0, 1, 2)}[self.theirs['layer_type']]

    def block(name):
      own = {'convs': {i: self.conv_norm(f'{name}.layer.{j}') for i, j in enumerate(convs)}}
      if kind == 'regnet':
        gate = [self.affine(f'{name}.layer.2.attention.{i}') for i in (0, 2)]
        own['squeeze_excite'] = {part: dict(g, kernel=g['kernel'][0, 0]) for part, g in zip(('down', 'up'), gate)}
      if f'{name}.shortcut.convolution.weight' in self.left:
        own['shortcut'] = self.conv_norm(f'{name}.shortcut')
      return own

    def stage(name, depth):
      blocks = [block(f'{name}.layers.{i}') for i in range(depth)]
      parts = {'first': blocks[:1], 'rest': blocks[1:]}
      return {part: {'blocks': _stacked(group)} for part, group in parts.items() if group}

    return {'stem': self.conv_norm(f'{kind}.embedder.embedder'),
            'stages': {i: stage(f'{kind}.encoder.stages.{i}', depth) for i, depth in enumerate(self.theirs['depths'])}}

  def _convnext(self):
    def block(name):
      return {'conv': self.affine(f'{name}.dwconv'), 'norm': self.norm(f'{name}.layernorm'),
              'mlp': {'up': self.affine(f'{name}.pwconv1'), 'down': self.affine(f'{name}.pwconv2')},
              'scale': self.left.pop(f'{name}.layer_scale_parameter')}

    patches, stages = {}, {}
    for i, depth in enumerate(self.theirs['depths']):
      name = f'convnext.encoder.stages.{i}'
      conv, norm = ('convnext.embeddings.patch_embeddings', 'convnext.embeddings.layernorm')
      if i:
        norm, conv = (f'{name}.downsampling_layer.{j}' for j in (0, 1))
      patches[i] = {'conv': self.affine(conv), 'norm': self.norm(norm)}
      stages[i] = {'blocks': _stacked([block(f'{name}.layers.{j}') for j in range(depth)])}
    return {'patches': patches, 'stages': stages, 'norm': self.norm('convnext.layernorm')}

  def _attention(self, name, heads):
    q_k_v = [self.affine(f'{name}.{letter}_proj') for letter in 'qkv']
    out = self.affine(f'{name}.o_proj')
    return {'qkv': jax.tree.map(lambda *p: np.stack([x.reshape(*x.shape[:-1], heads, -1) for x in p], -2), *q_k_v),
            'out': dict(out, kernel=out['kernel'].reshape(heads, -1, out['kernel'].shape[-1]))}

  def _encoder_block(self, name, heads):
    return {'norm1': self.norm(f'{name}.layernorm_before'), 'attention': self._attention(f'{name}.attention', heads),
            'norm2': self.norm(f'{name}.layernorm_after'),
            'mlp': {'up': self.affine(f'{name}.mlp.fc1'), 'down': self.affine(f'{name}.mlp.fc2')}}

  def _deit(self):
    """Their position embeddings of the two leading tokens are added to these."""
    patch = self.affine('deit.embeddings.patch_embeddings.projection')
    position = self.left.pop('deit.embeddings.position_embeddings')[0]
    token = lambda kind, i: self.left.pop(f'deit.embeddings.{kind}_token')[0, 0] + position[i]
    blocks = [self._encoder_block(f'deit.layers.{i}', self.theirs['num_attention_heads'])
              for i in range(self.theirs['num_hidden_layers'])]
    return {'patch_embed': {'proj': dict(patch, kernel=patch['kernel'].reshape(-1, patch['kernel'].shape[-1]))},
            'pos_embed': position[2:], 'cls': token('cls', 0), 'distillation': token('distillation', 1),
            'encoder': {'blocks': _stacked(blocks)}, 'norm': self.norm('deit.layernorm'),
            'distillation_head': self.affine('distillation_classifier')}

  def _swin(self):
    def block(name, heads):
      table = self.left.pop(f'{name}.attention.relative_position_bias.relative_position_bias_table')
      return self._encoder_block(name, heads) | {'bias_table': table}

    patch = self.affine('swin.embeddings.patch_embeddings.projection')
    params = {'patch_embed': dict(patch, kernel=patch['kernel'].reshape(-1, patch['kernel'].shape[-1])),
              'patch_norm': self.norm('swin.embeddings.norm'), 'merges': {}, 'stages': {}}
    for i, (depth, heads) in enumerate(zip(self.theirs['depths'], self.theirs['num_heads'])):
      name = f'swin.encoder.layers.{i}'
      blocks = [block(f'{name}.blocks.{j}', heads) for j in range(depth)]
      params['stages'][i] = {'blocks': _stacked([{'blocks': {0: blocks[j], 1: blocks[j + 1]}}
                                                 for j in range(0, depth, 2)])}
      if i + 1 < len(self.theirs['depths']):
        params['merges'][i] = {'norm': self.norm(f'{name}.downsample.norm'),
                               'proj': self.affine(f'{name}.downsample.reduction')}
    return params | {'norm': self.norm('swin.layernorm')}


def _stacked(blocks):
  return jax.tree.map(lambda *layers: np.stack(layers), *blocks)


def assert_fills(tree: dict, shapes: dict) -> None:
  """Every leaf of ours, and no other, with its shape and type."""
  signature = lambda tree: {path: (leaf.shape, np.dtype(leaf.dtype))
                            for path, leaf in traverse_util.flatten_dict(tree).items()}
  assert signature(tree) == signature(shapes)


def forward(model: PureModel):
  """A compiled (params, stats, images [B, C, H, W]) -> logits."""
  return jax.jit(lambda params, stats, images: model.apply(params, stats, images.transpose(0, 2, 3, 1))[0])


@functools.cache
def golden(case: str) -> tuple[dict, dict, np.ndarray, np.ndarray]:
  """(arguments of the config, tensors by name, images [B, C, H, W], logits [B, classes])."""
  with np.load(GOLDEN / f'{case}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  config, images, logits = json.loads(str(arrays.pop('config'))), arrays.pop('images'), arrays.pop('logits')
  return config, {name.removeprefix('param:'): value for name, value in arrays.items()}, images, logits


def _check(case, theirs, tensors, images, logits, scan):
  model = our_model(case, theirs, images.shape[2:], Execution(scan=scan))
  params, stats = Converter(tensors, theirs).params_and_stats(case.partition('-')[0])
  assert_fills(params, model.param_shapes())
  assert_fills(stats, model.stats_shapes())
  ours = np.asarray(forward(model)(params, stats, images))
  assert ours.shape == logits.shape and ours.dtype == logits.dtype == np.float32
  assert logits.std(axis=0).max() > 0.1 and logits.std(axis=1).min() > 0.3  # over pictures, over classes
  difference = np.abs(ours - logits).max()
  print(f'{case}, scan={scan}: max abs difference {difference:.2e}')
  assert difference <= TOLERANCE


def test_every_golden_file_is_tested():
  assert sorted(path.stem for path in GOLDEN.glob('*-*.npz')) == sorted(CASES)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_golden_logits(case, scan):
  theirs, tensors, images, logits = golden(case)
  _check(case, theirs, tensors, images, logits, scan)


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_depend_on_every_parameter_and_statistic(case):
  """The test above can fail: values one place out of order in any tensor of any block move the logits.

  But for the keys' bias: it adds the same to all logits of a query, which softmax ignores.
  """
  theirs, tensors, images, logits = golden(case)
  run = forward(our_model(case, theirs, images.shape[2:]))
  for name, tensor in tensors.items():
    axis = 0 if tensor.ndim == 4 and tensor.shape[-1] == 1 else -1  # 1 x 1 kernels: by output channel
    changed = dict(tensors, **{name: np.roll(tensor, 1, axis=axis)})
    ours = run(*Converter(changed, theirs).params_and_stats(case.partition('-')[0]), images)
    difference = np.abs(np.asarray(ours) - logits).max()
    assert (difference <= TOLERANCE) == name.endswith('k_proj.bias'), f'{name} shifted: {difference:.2e}'


@pytest.fixture(scope='module')
def script():
  """make_families_golden.py's functions, where what it needs is installed."""
  reason = 'live parity needs torch and transformers: see tests/golden/make_families_golden.py'
  pytest.importorskip('torch', reason=reason)
  pytest.importorskip('transformers', minversion='5.23.0', reason=reason)  # whose names `Converter` knows
  return types.SimpleNamespace(**runpy.run_path(str(GOLDEN / 'make_families_golden.py')))


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', LIVE)
def test_live_logits(script, case, scan):
  kind, theirs, size = LIVE[case]
  model, images = script.random_model(kind, theirs, seed=1), script.random_images(theirs, size, 2, seed=1)
  _check(case, theirs, script.tensors(model), images, script.logits(model, images), scan)
