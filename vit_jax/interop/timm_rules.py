"""The tensor names of timm's models, related to ours (see `rules`)."""

import dataclasses

from vit_jax.interop.rules import Axes, Rule, Tokens, attention, batch_norm, conv, dense, mlp, norm, patches, same


@dataclasses.dataclass(frozen=True)
class PrefixTokens:
  """The tokens before the patches of a ViT.

  Attributes:
    cls: there is a class token.
    number: how many registers there are.
    classified: the head reads the class token. Otherwise it is one of our global tokens, like the registers.
    distilled: there is a distillation token.
    position: there are positions.
    placed: the class token and the registers have positions too.
  """
  cls: bool
  number: int
  classified: bool
  distilled: bool = False
  position: bool = True
  placed: bool = True

  @property
  def registers(self) -> int:
    """How many global tokens our model has."""
    return self.number + (self.cls and not self.classified)

  def rules(self) -> list[Rule]:
    """The rule of the tokens and positions."""
    ours = (('cls',) * self.classified + ('distillation',) * self.distilled
            + ('global_tokens',) * bool(self.registers))
    theirs = ((('cls_token', 1),) * self.cls + (('dist_token', 1),) * self.distilled
              + (('reg_token', self.number),) * bool(self.number))
    position = 'pos_embed' if self.position else None
    if not ours:
      return same('pos_embed', 'T D', 'pos_embed', '1 T D')
    return [Tokens(ours, theirs, position, None if self.placed else 0)]


def _encoder_block(ours, theirs):
  return [*norm(f'{ours}.norm1', f'{theirs}.norm1'), *norm(f'{ours}.norm2', f'{theirs}.norm2'),
          *attention(f'{ours}.attention', [f'{theirs}.attn.qkv'], f'{theirs}.attn.proj'),
          *mlp(f'{ours}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2')]


def eva(last_norm: str, tokens: PrefixTokens, fused: bool, key_less: bool, gate: str | None) -> list[Rule]:
  """Eva: ViTs with rotary positions.

  Args:
    last_norm: model.last_norm.
    tokens: those before the patches.
    fused: queries, keys and values are one map.
    key_less: of its biases, those of the keys are missing.
    gate: the MLP's gate is a map 'apart', or 'packed' in one with what it gates; None: there is none.
  """
  block, theirs = 'encoder.blocks.{i}', 'blocks.{i}'
  gates = lambda name: tuple(f'{theirs}.mlp.fc1_{part}.{name}' for part in 'gx')
  apart = [Axes(f'{block}.mlp.up.kernel', 'I O 2', gates('weight'), 'O I'),
           Axes(f'{block}.mlp.up.bias', 'O 2', gates('bias'), 'O')]
  maps = [f'{theirs}.attn.{name}_proj' for name in 'qkv']
  return [*(apart if gate == 'apart' else []), *(key_less_biases(block, theirs) if fused and key_less else []),
          *([] if fused else attention(f'{block}.attention', maps, f'{theirs}.attn.proj')),
          *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.gamma_{i}')),
          *transformer(last_norm, tokens, gate == 'packed')]


def transformer(last_norm: str, tokens: PrefixTokens, gated: bool = False) -> list[Rule]:
  """ViT and DeiT; `last_norm` is model.last_norm, and `gated` is model.mlp == 'swiglu'."""
  block, theirs, pool = 'encoder.blocks.{i}', 'blocks.{i}', 'attention_pool'
  up = [*same(f'{block}.mlp.up.kernel', 'I O 2', f'{theirs}.mlp.fc1.weight', '(2 O) I'),
        *same(f'{block}.mlp.up.bias', 'O 2', f'{theirs}.mlp.fc1.bias', '(2 O)')]
  return [
      *patches('patch_embed.proj', 'patch_embed.proj'), *tokens.rules(), *norm('pre_norm', 'norm_pre'),
      *(up if gated else []), *_encoder_block(block, theirs),
      *norm(f'{block}.attention.query_norm', f'{theirs}.attn.q_norm'),
      *norm(f'{block}.attention.key_norm', f'{theirs}.attn.k_norm'),
      *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.ls{i}.gamma')),
      *norm('norm', 'fc_norm' if last_norm == 'pooled' else 'norm'), *dense('head', 'head'),
      *dense('distillation_head', 'head_dist'),
      *same(f'{pool}.probe', '1 D', 'attn_pool.latent', '1 1 D'),
      *same(f'{pool}.query.kernel', 'D H K', 'attn_pool.q.weight', '(H K) D'),
      *same(f'{pool}.query.bias', 'H K', 'attn_pool.q.bias', '(H K)'),
      Axes(f'{pool}.key_value.kernel', 'D H 2 K', ('attn_pool.kv.weight',), '(2 H K) D'),
      Axes(f'{pool}.key_value.bias', 'H 2 K', ('attn_pool.kv.bias',), '(2 H K)'),
      *dense(f'{pool}.out', 'attn_pool.proj', 'H K O', 'O (H K)'), *norm(f'{pool}.norm', 'attn_pool.norm'),
      *mlp(f'{pool}.mlp', 'attn_pool.mlp.fc1', 'attn_pool.mlp.fc2')]


def key_less_biases(block: str, theirs: str) -> list[Rule]:
  """Biases of queries and values alone, with those of 0 for the keys (`derived.with_key_biases`)."""
  return [Axes(f'{block}.attention.qkv.bias', 'H 3 K', tuple(f'{theirs}.attn.{name}_bias' for name in 'qkv'), '(H K)')]


def swin(v2: bool = False) -> list[Rule]:
  """Swin and Swin V2."""
  block, theirs = 'stages.{i}.blocks.{j}', 'layers.{i}.blocks.{j}'
  return [*patches('patch_embed', 'patch_embed.proj'), *norm('patch_norm', 'patch_embed.norm'),
          *(key_less_biases(block, theirs) if v2 else []), *_encoder_block(block, theirs),
          *same(f'{block}.attention.log_scale', 'H', f'{theirs}.attn.logit_scale', 'H 1 1'),
          *dense(f'{block}.bias_network.up', f'{theirs}.attn.cpb_mlp.0'),
          *dense(f'{block}.bias_network.down', f'{theirs}.attn.cpb_mlp.2'),
          *same(f'{block}.bias_table', 'N H', f'{theirs}.attn.relative_position_bias_table'),
          *norm('merges.{i}.norm', 'layers.{i1}.downsample.norm'),
          *dense('merges.{i}.proj', 'layers.{i1}.downsample.reduction'),
          *norm('norm', 'norm'), *dense('head', 'head.fc')]


def resnet(deep: bool = False, average: bool = False) -> list[Rule]:
  """ResNet, ResNeXt and wide ResNets; `deep` and `average` are stem=deep and average_shortcut."""
  block, theirs = 'stages.{i}.blocks.{j}', 'layer{i1}.{j}'
  first = 1 if average else 0  # the mean has a number of its own
  stem = [rule for i in (0, 1) for rule in (
      *conv(f'deep.{i}.conv', f'conv1.{3 * i}'), *batch_norm(f'deep.{i}.norm', f'conv1.{3 * i + 1}'))]
  return [*(stem if deep else []), *conv('stem.conv', 'conv1.6' if deep else 'conv1'), *batch_norm('stem.norm', 'bn1'),
          *conv(f'{block}.convs.{{k}}.conv', f'{theirs}.conv{{k1}}'),
          *batch_norm(f'{block}.convs.{{k}}.norm', f'{theirs}.bn{{k1}}'),
          *conv(f'{block}.shortcut.conv', f'{theirs}.downsample.{first}'),
          *batch_norm(f'{block}.shortcut.norm', f'{theirs}.downsample.{first + 1}'), *dense('head', 'fc')]


def regnet() -> list[Rule]:
  """RegNetX and RegNetY."""
  block, theirs = 'stages.{i}.blocks.{j}', 's{i1}.b{j1}'
  pairs = [('stem', 'stem'), (f'{block}.convs.{{k}}', f'{theirs}.conv{{k1}}'),
           (f'{block}.shortcut', f'{theirs}.downsample')]
  return [*(rule for ours, their in pairs
            for rule in conv(f'{ours}.conv', f'{their}.conv') + batch_norm(f'{ours}.norm', f'{their}.bn')),
          *dense(f'{block}.squeeze_excite.down', f'{theirs}.se.fc1', 'I O', 'O I 1 1'),
          *dense(f'{block}.squeeze_excite.up', f'{theirs}.se.fc2', 'I O', 'O I 1 1'), *dense('head', 'head.fc')]


def convnext(conv_mlp: bool = False) -> list[Rule]:
  """ConvNeXt and ConvNeXt V2; with `conv_mlp`, MLPs are convolutions of 1 x 1."""
  block, theirs = 'stages.{i}.blocks.{j}', 'stages.{i}.blocks.{j}'
  axes = 'O I 1 1' if conv_mlp else 'O I'
  return [*conv('patches.0.conv', 'stem.0'), *norm('patches.0.norm', 'stem.1'),
          *norm('patches.{i}.norm', 'stages.{i}.downsample.0'), *conv('patches.{i}.conv', 'stages.{i}.downsample.1'),
          *conv(f'{block}.conv', f'{theirs}.conv_dw'), *norm(f'{block}.norm', f'{theirs}.norm'),
          *dense(f'{block}.mlp.up', f'{theirs}.mlp.fc1', 'I O', axes),
          *dense(f'{block}.mlp.down', f'{theirs}.mlp.fc2', 'I O', axes),
          *norm(f'{block}.mlp.grn', f'{theirs}.mlp.grn'), *same(f'{block}.scale', 'D', f'{theirs}.gamma'),
          *norm('norm', 'head.norm'), *dense('head', 'head.fc')]
