"""A ViT behind a ResNet computes what timm's hybrid does from the same parameters (make_hybrid_golden.py's file)."""

import pathlib

import jax
import numpy as np

from vit_jax.models import PureModel, vit

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'vit_hybrid.npz'
CONFIG = vit.Config(stem='resnet', stem_depths=(1, 1), stem_width=32, patch_size=8, width=16, depth=2, mlp_dim=32,
                    num_heads=2)


class Converter:
  """Our tree from timm's tensors, each of which must be used."""

  def __init__(self, tensors):
    self.left = {name: value.astype(np.float32) for name, value in tensors.items()}

  def params(self):
    position = self.left.pop('pos_embed')[0]
    proj = self.affine('patch_embed.proj')
    params = {
        'patch_embed': {
            'root': self.conv_norm('stem.conv', 'stem.norm'), 'blocks': {i: self.block(i) for i in range(2)},
            'proj': dict(proj, kernel=proj['kernel'][0, 0])},
        'pos_embed': position[1:], 'cls': self.left.pop('cls_token')[0, 0] + position[0],
        'encoder': {'blocks': jax.tree.map(lambda *layers: np.stack(layers), *map(self.encoder_block, range(2)))},
        'norm': self.norm('norm'), 'head': self.affine('head')}
    assert not self.left, f'tensors that nothing of ours uses: {sorted(self.left)}'
    return params

  def affine(self, name):
    weight = self.left.pop(f'{name}.weight')
    bias = {'bias': self.left.pop(f'{name}.bias')} if f'{name}.bias' in self.left else {}
    return {'kernel': weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, **bias}

  def norm(self, name):
    return {'scale': self.left.pop(f'{name}.weight'), 'bias': self.left.pop(f'{name}.bias')}

  def conv_norm(self, conv, norm):
    return {'conv': self.affine(f'patch_embed.backbone.{conv}'), 'norm': self.norm(f'patch_embed.backbone.{norm}')}

  def block(self, stage):
    name = f'stages.{stage}.blocks.0'
    return {'convs': {i: self.conv_norm(f'{name}.conv{i + 1}', f'{name}.norm{i + 1}') for i in range(3)},
            'shortcut': self.conv_norm(f'{name}.downsample.conv', f'{name}.downsample.norm')}

  def encoder_block(self, i):
    qkv, out = (self.affine(f'blocks.{i}.attn.{name}') for name in ('qkv', 'proj'))
    return {'norm1': self.norm(f'blocks.{i}.norm1'), 'norm2': self.norm(f'blocks.{i}.norm2'),
            'attention': {'qkv': {'kernel': qkv['kernel'].reshape(16, 3, 2, 8).swapaxes(1, 2),
                                  'bias': qkv['bias'].reshape(3, 2, 8).swapaxes(0, 1)},
                          'out': dict(out, kernel=out['kernel'].reshape(2, 8, 16))},
            'mlp': {'up': self.affine(f'blocks.{i}.mlp.fc1'), 'down': self.affine(f'blocks.{i}.mlp.fc2')}}


def test_golden_logits():
  with np.load(GOLDEN, allow_pickle=False) as file:
    tensors = dict(file)
  images, logits = tensors.pop('images'), tensors.pop('logits')
  params = Converter({name.removeprefix('param:'): value for name, value in tensors.items()}).params()
  model = PureModel('vit', CONFIG, (32, 48, 3), 5)
  jax.tree.map(lambda ours, shape: np.testing.assert_equal(ours.shape, shape.shape), params, model.param_shapes())
  ours = jax.jit(lambda params, images: model.apply(params, {}, images)[0])(params, images.transpose(0, 2, 3, 1))
  assert logits.std() > 0.1 and np.abs(ours - logits).max() <= 1e-4
