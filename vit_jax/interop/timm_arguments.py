"""Arguments that several classes of timm have, and what their values mean here."""

from vit_jax.interop.entries import Entries

NORMS_6 = (None, 'layernorm', 'LayerNorm', 'LayerNorm(eps=1e-06)', 'layernormfp32')
NORMS_5 = ('LayerNorm(eps=1e-05)',)
GELU = ((None, 'exact'), ('gelu', 'exact'), ('gelu_tanh', 'tanh'), ('quick_gelu', 'quick'))
RELU = (None, 'relu', 'ReLU')
BATCH_NORM = (None, 'batchnorm', 'batchnorm2d', 'BatchNorm2d')
# Numbers of the training, and sizes that the tensors show.
_FREE = ('in_chans', 'num_classes', 'drop_rate', 'drop_path_rate', 'proj_drop_rate', 'attn_drop_rate', 'pos_drop_rate',
         'patch_drop_rate', 'drop_block_rate', 'weight_init', 'fix_init', 'zero_init_last', 'head_init_scale')


def finish(e: Entries, *free: str) -> None:
  """Raises UserError for an argument that nobody named; `free` are those without an effect on the outputs."""
  e.free(*_FREE, *free)
  e.only('device', None)
  e.only('dtype', None)
  e.close()
