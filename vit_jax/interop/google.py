"""The .npz files of the original Vision Transformer code (google-research/vision_transformer: ViT, AugReg, hybrids).

Those of big_vision are read too (`big_vision`).

The model is determined by the shapes in a file. Pictures are assumed to be square. As in the original code, they are
resized to the model's size without cropping and scaled to [-1, 1].
"""

import math
import re

import numpy as np

from vit_jax.data.preprocessing import parse
from vit_jax.errors import UserError
from vit_jax.interop import big_vision, layout
from vit_jax.interop.rules import Axes, Rule, Tokens, same
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights

_ROOT = 'gn_root/scale'  # of the ResNet of a hybrid
_BLOCK = 'Transformer/encoderblock_'
_POSITION = 'Transformer/posembed_input/pos_embedding'


def _norm(ours, theirs):
  return same(f'{ours}.scale', 'D', f'{theirs}/scale') + same(f'{ours}.bias', 'D', f'{theirs}/bias')


def _dense(ours, theirs, axes='I O', their_axes=None):
  return same(f'{ours}.kernel', axes, f'{theirs}/kernel', their_axes) + same(f'{ours}.bias', 'O', f'{theirs}/bias')


def _resnet(depths, norm_axes) -> list[Rule]:
  """The ResNet of a hybrid. Their files have stages of units; this project numbers all blocks in one sequence."""
  def conv_norm(ours, conv, norm):
    return [*same(f'{ours}.conv.kernel', 'A B I O', f'{conv}/kernel'),
            *same(f'{ours}.norm.scale', 'O', f'{norm}/scale', norm_axes),
            *same(f'{ours}.norm.bias', 'O', f'{norm}/bias', norm_axes)]

  rules = conv_norm('patch_embed.root', 'conv_root', 'gn_root')
  units = [f'block{stage}/unit{i + 1}' for stage, depth in enumerate(depths, 1) for i in range(depth)]
  for i, unit in enumerate(units):
    for k in range(3):
      rules += conv_norm(f'patch_embed.blocks.{i}.convs.{k}', f'{unit}/conv{k + 1}', f'{unit}/gn{k + 1}')
    rules += conv_norm(f'patch_embed.blocks.{i}.shortcut', f'{unit}/conv_proj', f'{unit}/gn_proj')
  return rules + _dense('patch_embed.proj', 'embedding', 'I O', '1 1 I O')


def _pool():
  """big_vision's attention pooling."""
  ours, theirs = 'attention_pool', 'MAPHead_0'
  attention, key_value = f'{theirs}/MultiHeadDotProductAttention_0', ('key', 'value')
  return [*same(f'{ours}.probe', '1 D', f'{theirs}/probe', '1 1 D'),
          *same(f'{ours}.query.kernel', 'D H K', f'{attention}/query/kernel'),
          *same(f'{ours}.query.bias', 'H K', f'{attention}/query/bias'),
          Axes(f'{ours}.key_value.kernel', 'D H 2 K', tuple(f'{attention}/{k}/kernel' for k in key_value), 'D H K'),
          Axes(f'{ours}.key_value.bias', 'H 2 K', tuple(f'{attention}/{k}/bias' for k in key_value), 'H K'),
          *_dense(f'{ours}.out', f'{attention}/out', 'H K O'), *_norm(f'{ours}.norm', f'{theirs}/LayerNorm_0'),
          *_dense(f'{ours}.mlp.up', f'{theirs}/MlpBlock_0/Dense_0'),
          *_dense(f'{ours}.mlp.down', f'{theirs}/MlpBlock_0/Dense_1')]


def _rules(config, norm_axes='O', placed=None) -> list[Rule]:
  """The table of names.

  `norm_axes` are the axes of a group norm's scale, which is [1, 1, 1, C] in older files; `placed` is 0 if the class
  token has no position (big_vision).
  """
  embedding = (_resnet(config.stem_depths, norm_axes) if config.stem == 'resnet' else
               _dense('patch_embed.proj', 'embedding', '(P Q C) O', 'P Q C O'))
  block, theirs = 'encoder.blocks.{i}', _BLOCK + '{i}'
  attention = f'{theirs}/MultiHeadDotProductAttention_1'
  q_k_v = [f'{attention}/{name}' for name in ('query', 'key', 'value')]
  return [*embedding, Tokens(('cls',), (('cls', 1),), _POSITION, placed), *_pool(),
          *same('pos_embed', 'T D', _POSITION, '1 T D'),
          *_norm(f'{block}.norm1', f'{theirs}/LayerNorm_0'), *_norm(f'{block}.norm2', f'{theirs}/LayerNorm_2'),
          Axes(f'{block}.attention.qkv.kernel', 'D H 3 K', tuple(f'{name}/kernel' for name in q_k_v), 'D H K'),
          Axes(f'{block}.attention.qkv.bias', 'H 3 K', tuple(f'{name}/bias' for name in q_k_v), 'H K'),
          *_dense(f'{block}.attention.out', f'{attention}/out', 'H K O'),
          *_dense(f'{block}.mlp.up', f'{theirs}/MlpBlock_3/Dense_0'),
          *_dense(f'{block}.mlp.down', f'{theirs}/MlpBlock_3/Dense_1'),
          *_norm('norm', 'Transformer/encoder_norm'), *_dense('head', 'head')]


def is_google(tensors: Tensors) -> bool:
  """Whether the names are separated by slashes, as in Flax; PyTorch uses dots."""
  return any('/' in name for name in tensors.shapes)


def read(tensors: Tensors, without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a .npz file. GELU is the tanh approximation, which is the default of Flax.

  Args:
    tensors: the tensors of the file.
    without: see `layout.read`.

  Raises:
    UserError: the names are not those of a ViT, or tensors do not fit.
  """
  in_original_order = any('posembed_input/' in name for name in tensors.shapes)
  tensors = big_vision.in_original_names(tensors)
  shapes, where = tensors.shapes, tensors.source
  kernel, query = shapes.get('embedding/kernel'), shapes.get(
      f'{_BLOCK}0/MultiHeadDotProductAttention_1/query/kernel')
  up, position = shapes.get(f'{_BLOCK}0/MlpBlock_3/Dense_0/kernel'), shapes.get(_POSITION)
  needed = {'embedding/kernel': (kernel, 4), f'{_BLOCK}0/../query/kernel': (query, 3),
            f'{_BLOCK}0/../Dense_0/kernel': (up, 2), _POSITION: (position, 3)}
  if wrong := [name for name, (shape, rank) in needed.items() if shape is None or len(shape) != rank]:
    raise UserError(f'{where}: expected the tensors of a ViT of google-research/vision_transformer or big_vision, but '
                    f'{" and ".join(wrong)} {"is" if len(wrong) == 1 else "are"} missing or of another rank'
                    + ('. Models with computed positions cannot be read: no tensor shows the size of their pictures'
                       if wrong == [_POSITION] else ''))
  cls = 'cls' in shapes
  placed = int(cls and in_original_order)  # whether the class token has a position
  side = math.isqrt(position[1] - placed)
  if side * side != position[1] - placed:
    raise UserError(f'{where}: expected a square number of patch positions, got {position[1] - placed}')
  depth = len({name.split('/')[1] for name in shapes if name.startswith(_BLOCK)})
  stem = _stem(shapes, kernel, where)
  patch_size = 2**(len(stem['stem_depths']) + 1) if stem else kernel[0]
  model = {'patch_size': patch_size, 'width': kernel[3], 'depth': depth, 'mlp_dim': up[1], 'num_heads': query[1],
           'pool': 'cls' if cls else 'map' if 'MAPHead_0/probe' in shapes else 'gap', 'gelu': 'tanh', **stem}
  channels = shapes['conv_root/kernel'][2] if stem else kernel[2]
  preprocessing = parse({'size': side * patch_size, 'channels': channels, 'squeeze': True}, where)
  weights = Weights(where, 'vit', model, {}, {}, preprocessing)
  classes = shapes['head/kernel'][-1] if 'head/kernel' in shapes else None
  norm_axes = '1 1 1 O' if len(shapes.get(_ROOT, ())) == 4 else 'O'
  return layout.read(tensors, weights, classes, _rules(weights.config, norm_axes, placed), without)


def _stem(shapes, kernel, where):
  """The config fields of the ResNet of a hybrid; {} for a plain ViT."""
  root = shapes.get('conv_root/kernel')
  if root is None:
    return {}
  units = {tuple(name.split('/')[:2]) for name in shapes if re.match(r'block\d+/unit\d+/', name)}
  stages = {stage for stage, _ in units}
  depths = tuple(sum(stage == f'block{i}' for stage, _ in units) for i in range(1, len(stages) + 1))
  if len(root) != 4 or kernel[:2] != (1, 1) or not depths or 0 in depths:
    raise UserError(f'{where}: expected a hybrid of ResNet stages and 1x1 patches, got conv_root/kernel {list(root)}, '
                    f'embedding/kernel {list(kernel)} and units per stage {list(depths)}')
  return {'stem': 'resnet', 'stem_depths': depths, 'stem_width': root[3]}


def write(weights: Weights) -> dict[str, np.ndarray]:
  """{their name: array}, which `read` can read. Raises UserError for a model that the original code does not have."""
  expected = {'pool': ('cls', 'gap'), 'gelu': ('tanh',), 'stem': ('patch', 'resnet'), 'pos_embed': ('learned',)}
  if weights.family != 'vit':
    raise UserError(f'{weights.source}: the original code has no {weights.family}; try --to=bundle')
  for name, values in expected.items():
    if (value := getattr(weights.config, name)) not in values:
      right = ' or '.join(map(repr, values))
      raise UserError(f'{weights.source}: model.{name}: the original code expects {right}, got {value!r}; try '
                      '--to=timm or --to=bundle')
  layout.check_representable(weights, ('patch_size', 'width', 'depth', 'mlp_dim', 'num_heads', 'pool', 'gelu', 'stem',
                                       'stem_depths', 'stem_width'), 'the original code')
  return layout.write(weights, _rules(weights.config))
