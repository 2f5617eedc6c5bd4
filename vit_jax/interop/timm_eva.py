"""timm's Eva: Vision Transformers with rotary positions, among them DINOv3. What `timm_layouts` needs of it.

Its two kinds of rotary positions are `pos_embed` rope2d and rope2d_centred here. Mixed ones, which are learned, and
rotary beside learned positions are not supported.
"""

from vit_jax.errors import UserError
from vit_jax.interop import derived, timm_rules
from vit_jax.interop.timm_arguments import NORMS_5, NORMS_6, finish

# Maps whose channels turn in pairs of neighbours unless rope_rotate_half, and how many are in one.
_MAPS = {'.attn.qkv.weight': 3, '.attn.qkv.bias': 3, '.attn.q_proj.weight': 1, '.attn.q_proj.bias': 1,
         '.attn.k_proj.weight': 1, '.attn.k_proj.bias': 1, '.attn.q_bias': 1, '.attn.k_bias': 1}


def derive(tensors, e):
  """The tensors with biases of 0 for keys that have none, and with channels that turn in halves."""
  if e.get('attn_type', 'eva') == 'eva':
    for query, key in (('.q_bias', '.k_bias'), ('.q_proj.bias', '.k_proj.bias')):
      tensors = derived.with_key_biases(tensors, query, key)
  if e.switched('use_rot_pos_emb') and not e.switched('rope_rotate_half'):
    swap = e.choose('rope_grid_indexing', [('ij', False), ('xy', True)], 'ij')
    return derived.in_halves(tensors, _MAPS, e.get('num_heads', 12), swap)
  e.only('rope_grid_indexing', 'ij')
  return tensors


def read(shapes, e):
  """See `timm_layouts.Layout.read`."""
  width, _, patch, _ = shapes['patch_embed.proj.weight']
  pool = e.choose('global_pool', [('token', 'cls'), ('avg', 'gap')], 'avg')
  tokens = _tokens(e, pool)
  e.only('attn_type', 'eva', 'rope')
  fused, key_less = e.switched('qkv_fused', True), e.get('attn_type', 'eva') == 'eva'
  pooled = e.choose('use_fc_norm', [(None, pool == 'gap'), (False, False), (True, True)], None)
  after = e.choose('use_post_transformer_norm', [(None, not pooled), (False, False), (True, True)], None)
  if pooled and after:
    raise e.refused('use_post_transformer_norm', 'expected False with use_fc_norm: one last norm')
  gate, mlp = _mlp(shapes, e)
  scale = e.get('init_values')
  out = {'patch_size': patch, 'width': width, 'pool': pool, **mlp, **_positions(e, tokens),
         'depth': len({name.split('.')[1] for name in shapes if name.startswith('blocks.')}),
         'num_heads': e.get('num_heads', 12), 'qkv_bias': e.switched('qkv_bias', True),
         'qk_norm': e.switched('qk_norm'), 'pre_norm': e.switched('use_pre_transformer_norm'),
         'global_tokens': tokens.registers, 'last_norm': 'pooled' if pooled else 'tokens' if after else 'none',
         'layer_scale': None if scale is None else float(scale),
         'epsilon': e.choose('norm_layer', [*((n, 1e-6) for n in NORMS_6), *((n, 1e-5) for n in NORMS_5)], None)}
  if out['qk_norm'] and e.switched('use_rot_pos_emb') and not e.switched('rope_rotate_half'):
    raise e.refused('qk_norm', 'expected False, or rope_rotate_half=True')
  for key in ('scale_mlp', 'scale_attn_inner', 'use_post_norm', 'attn_only_layer_scale'):
    e.only(key, False)
  e.only('num_kv_heads', None, out['num_heads'])
  e.free('ref_feat_shape')  # see `check`
  finish(e, 'img_size', 'patch_size', 'embed_dim', 'depth', 'mlp_ratio', 'swiglu_align_to', 'dynamic_img_size',
         'dynamic_img_pad', 'rope_shift_coords', 'rope_jitter_coords', 'rope_rescale_coords', 'rope_mrope_section',
         'attn_pool_num_heads', 'attn_pool_mlp_ratio')
  return out, timm_rules.eva(out['last_norm'], tokens, fused, key_less and out['qkv_bias'], gate)


def _tokens(e, pool):
  cls, registers = e.switched('class_token', True), e.get('num_reg_tokens', 0)
  if not isinstance(registers, int) or registers < 0:
    raise e.refused('num_reg_tokens', 'expected a number')
  if not cls and pool == 'cls':
    raise e.refused('class_token', 'expected True with global_pool=token')
  position = e.switched('use_abs_pos_emb', True)
  return timm_rules.PrefixTokens(cls, registers, pool == 'cls', False, position, not e.switched('no_embed_class'))


def _positions(e, tokens):
  """pos_embed and rope_theta."""
  if not e.switched('use_rot_pos_emb'):
    e.free('rope_type', 'rope_grid_offset', 'rope_temperature')
    return {'pos_embed': 'learned' if tokens.position else 'none'}
  if tokens.position:
    raise e.refused('use_abs_pos_emb', 'expected False with use_rot_pos_emb: positions of one kind')
  e.only('rope_grid_offset', 0, 0.0)
  return {'pos_embed': e.choose('rope_type', [('cat', 'rope2d'), ('dinov3', 'rope2d_centred')], 'cat'),
          'rope_theta': float(e.get('rope_temperature', 10_000))}


def _mlp(shapes, e):
  """(how its gate is stored, the fields of our config)."""
  if not e.switched('swiglu_mlp'):
    return None, {'mlp_dim': shapes['blocks.0.mlp.fc1.weight'][0]}
  if e.get('swiglu_align_to', 0):
    return 'apart', {'mlp': 'swiglu', 'mlp_dim': shapes['blocks.0.mlp.fc1_g.weight'][0]}
  return 'packed', {'mlp': 'swiglu', 'mlp_dim': shapes['blocks.0.mlp.fc1.weight'][0] // 2}


def check(model, e, size, where):
  """Refuses a grid that timm measures in units of another one: places are those of the grid here."""
  reference = e.get('ref_feat_shape')
  if model['pos_embed'] != 'rope2d' or reference is None:
    return
  grid = [side // model['patch_size'] for side in size]
  wanted = [reference] * 2 if isinstance(reference, int) else list(reference)
  if grid != wanted:
    raise UserError(f'{where}: pictures of {size[0]}x{size[1]} have {grid[0]}x{grid[1]} patches, whose places timm '
                    f'measures on the grid of ref_feat_shape={reference}; expected pictures of '
                    f'{wanted[0] * model["patch_size"]}x{wanted[1] * model["patch_size"]}')
