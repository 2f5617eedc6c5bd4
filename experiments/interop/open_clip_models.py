"""Small models of OpenCLIP with random parameters, of which the image tower is compared."""

import json
import pathlib

import numpy as np
import open_clip
import torch
from compare import Outcome, compare, randomise
from safetensors.torch import save_file

SIZES = dict(layers=2, width=32, patch_size=8, image_size=16, head_width=8)
_TEXT = dict(context_length=8, vocab_size=50, width=16, heads=2, layers=1)
OPTIONS = dict(image_size=[24, [16, 32]], head_width=[16, 32], mlp_ratio=[2.0, 3.7], no_ln_pre=[True],
               pool_type=['avg', 'tok'], final_ln_after_pool=[True], ls_init_value=[0.1], norm_kwargs=[{'eps': 1e-3}],
               act_kwargs=[{'approximate': 'tanh'}], qk_norm=[True], scaled_cosine_attn=[True], scale_heads=[True],
               scale_attn=[True], scale_fc=[True], attentional_pool=[True], pos_embed_type=['sin_cos_2d'],
               patch_dropout=[0.5], block_type=['custom'], output_tokens=[False])


def outcome(name: str, vision: dict, quick: bool, place: pathlib.Path, seed: int) -> Outcome:
  """Saves a model as OpenCLIP does, and compares the features of its image tower, before their projection."""
  config = dict(embed_dim=12, quick_gelu=quick, vision_cfg={**SIZES, **vision}, text_cfg=_TEXT)
  try:
    model = randomise(open_clip.CLIP(**config), [seed])
    size = config['vision_cfg']['image_size']
    size = (size, size) if isinstance(size, int) else size
    images = np.random.default_rng([seed, 1]).standard_normal((2, 3, *size)).astype(np.float32)
    save_file(model.state_dict(), place / 'open_clip_model.safetensors')
    (place / 'open_clip_config.json').write_text(json.dumps({'model_cfg': config, 'preprocess_cfg': {}}))
    model.visual.proj = None
    with torch.no_grad():
      theirs = model.visual(torch.from_numpy(images)).numpy()
  except Exception as error:  # whatever OpenCLIP raises for options that do not go together
    return Outcome(name, 'not built', f'{type(error).__name__}: {error}'[:120])
  return compare(name, place, images, theirs)
