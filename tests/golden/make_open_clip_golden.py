"""Writes the golden files that hold the reading of OpenCLIP's files to OpenCLIP, as make_golden.py does for ViT.

  pip install torch==2.13.0 open_clip_torch==3.3.0 timm==1.0.31 transformers==5.23.0
  python tests/golden/make_open_clip_golden.py

Each `open_clip_CASE.npz` holds `config` (an open_clip_config.json), `pixels` (float32 [B, C, H, W]), `tokens` (int
[B, T]) of `texts`, `features` (of pictures, before the projection), `logits` of pictures with texts, one `param:NAME`
for each tensor, and `file:NAME` for the tokenizer's. No array is pickled.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np
import open_clip
import timm
import torch
import transformers
from make_pairs_golden import TEXTS, arrays
from make_timm_golden import random_value

_SHAPE = dict(layers=2, width=16, patch_size=4, image_size=8)
_TEXT = dict(context_length=16, vocab_size=64, width=16, heads=2, layers=2)
_SIGLIP = dict(_TEXT, hf_tokenizer_name='of/siglip', tokenizer_kwargs={'clean': 'canonicalize'}, no_causal_mask=True,
               proj_bias=True, pool_type='last', norm_kwargs={'eps': 1e-6}, act_kwargs={'approximate': 'tanh'})
# The model of timm that this name stands for in the cases, and in their tests: those of the registry are large.
TRUNK = ('vit_golden', 'VisionTransformer', dict(embed_dim=16, depth=2, num_heads=2, img_size=8, patch_size=4,
                                                 class_token=False, global_pool='map'))
CASES = {
    'clip': dict(embed_dim=12, quick_gelu=True, vision_cfg=dict(_SHAPE, head_width=8), text_cfg=_TEXT),
    # As CLIPA's, with LayerScale.
    'average': dict(embed_dim=12, text_cfg=_TEXT, vision_cfg=dict(
        _SHAPE, head_width=4, mlp_ratio=3.0, no_ln_pre=True, pool_type='avg', final_ln_after_pool=True,
        ls_init_value=0.5)),
    'siglip': dict(embed_dim=16, init_logit_bias=-10, custom_text=True, text_cfg=_SIGLIP, vision_cfg=dict(
        image_size=8, timm_model_name=TRUNK[0], timm_pool='map', timm_proj='none')),
    # A model of timm with a projection beside a text tower of CLIP.
    'trunk': dict(embed_dim=12, custom_text=True, text_cfg=_TEXT, vision_cfg=dict(
        image_size=8, timm_model_name=TRUNK[0], timm_pool='', timm_proj='linear')),
}


@timm.models.register_model
def vit_golden(pretrained=False, **kwargs):
  """TRUNK."""
  return timm.models.vision_transformer._create_vision_transformer('vit_golden', **{**TRUNK[2], **kwargs})


def random_model(config: dict, seed: int) -> torch.nn.Module:
  """A model in evaluation mode, its every parameter drawn from the seed."""
  own = {key: value for key, value in config.items() if key != 'custom_text'}
  model = (open_clip.CustomTextCLIP if config.get('custom_text') else open_clip.CLIP)(**own).eval()
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      value = np.float32(2 + rng.random()) if name == 'logit_scale' else random_value(rng, name, tuple(tensor.shape))
      tensor.copy_(torch.from_numpy(np.asarray(value, np.float32)))
  return model


def _clip_tokens():
  """({'file:NAME': bytes of a tokenizer}, tokens of TEXTS)."""
  theirs = arrays('clip')
  return {name: value for name, value in theirs.items() if name.startswith('file:')}, theirs['tokens']


def _siglip_tokens(config):
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / 'spiece.model').write_bytes(arrays('siglip')['file:spiece.model'].tobytes())
    made = transformers.T5TokenizerFast(vocab_file=str(folder / 'spiece.model'), extra_ids=0, pad_token='</s>')
    made.save_pretrained(folder)
    found = open_clip.tokenizer.HFTokenizer(str(folder), config['context_length'], **config['tokenizer_kwargs'])
    files = {f'file:{path.name}': np.frombuffer(path.read_bytes(), np.uint8) for path in folder.glob('tokenizer*.json')}
    return files, found(list(TEXTS)).numpy()


def case_arrays(case: str) -> dict[str, np.ndarray]:
  """What the file of this case holds."""
  config, seed = CASES[case], zlib.crc32(case.encode())
  model = random_model(config, seed)
  files, tokens = _siglip_tokens(config['text_cfg']) if case == 'siglip' else _clip_tokens()
  pixels = np.random.default_rng([seed, 1]).standard_normal((len(TEXTS), 3, 8, 8)).astype(np.float32)
  with torch.no_grad():
    image = model.encode_image(torch.from_numpy(pixels), normalize=True)
    text = model.encode_text(torch.from_numpy(tokens), normalize=True)
    logits = model.logit_scale.exp() * image @ text.T + (0 if model.logit_bias is None else model.logit_bias)
    trunk = model.visual.trunk if hasattr(model.visual, 'trunk') else model.visual
    if trunk is model.visual:
      trunk.proj = None
    features = trunk(torch.from_numpy(pixels))
  tensors = {f'param:{name}': tensor.numpy() for name, tensor in random_model(config, seed).state_dict().items()}
  saved = {'model_cfg': config, 'preprocess_cfg': {'mean': [0.5] * 3, 'std': [0.25] * 3, 'resize_mode': 'squash'}}
  return {'config': np.array(json.dumps(saved)), 'pixels': pixels, 'tokens': tokens,
          'texts': np.array(json.dumps(TEXTS)), 'features': features.numpy(), 'logits': logits.numpy(),
          **files, **tensors}


def main() -> None:
  """Writes every case beside this script."""
  print(f'open_clip {open_clip.__version__}, timm {timm.__version__}, transformers {transformers.__version__}')
  for case in CASES:
    path = pathlib.Path(__file__).with_name(f'open_clip_{case}.npz')
    np.savez_compressed(path, **case_arrays(case))
    print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
