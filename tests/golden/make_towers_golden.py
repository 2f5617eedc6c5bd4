"""Writes the golden files that hold the reading of vision towers to transformers, as make_golden.py does for ViT.

  pip install torch==2.13.0 torchvision transformers==5.23.0 numpy==2.4.6
  python tests/golden/make_towers_golden.py

Each `tower_CASE.npz` holds `config` (the config.json that transformers writes), `images` (float32 [B, C, H, W]),
`outputs` (float32 [B, classes or D]: logits, or the pooled features of a backbone) and one `param:NAME` for each tensor
of its model.safetensors. No array is pickled. All values come from the seed; another processor or version of torch may
change the outputs' last bits.
"""

import json
import pathlib
import tempfile
import zlib

import numpy as np
import torch
import transformers
from make_timm_golden import random_value
from safetensors.numpy import load_file

_SHAPE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8)
_MLP = dict(_SHAPE, intermediate_size=12)
_TEXT = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, vocab_size=20)
_TWO = dict(text_config=_TEXT, vision_config=_MLP, num_labels=7)
# {case: (class of transformers, arguments of its config, side of the pictures)}
CASES = {
    'dinov2': ('Dinov2Model', dict(_SHAPE, mlp_ratio=2), 24),
    'dinov2_resized': ('Dinov2Model', dict(_SHAPE, mlp_ratio=2), 40),
    'dinov2_swiglu': ('Dinov2Model', dict(_SHAPE, mlp_ratio=2, use_swiglu_ffn=True), 24),
    'dinov2_classifier': ('Dinov2ForImageClassification', dict(_SHAPE, mlp_ratio=2, num_labels=7), 24),
    'dinov2_registers': ('Dinov2WithRegistersModel', dict(_SHAPE, mlp_ratio=2, num_register_tokens=2), 16),
    'dinov3': ('DINOv3ViTModel', dict(_MLP, num_register_tokens=2), 24),
    'dinov3_gated': ('DINOv3ViTModel', dict(_MLP, use_gated_mlp=True, hidden_act='silu', rope_theta=50.0), 24),
    'swin_v2_classifier': ('Swinv2ForImageClassification', dict(
        image_size=24, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4,
        pretrained_window_sizes=[3, 5], num_labels=7), 24),
    'convnext_v2_classifier': ('ConvNextV2ForImageClassification', dict(
        hidden_sizes=[8, 12], depths=[1, 2], num_stages=2, image_size=24, num_labels=7), 24),
    'clip_vision': ('CLIPVisionModel', _MLP, 24),
    'clip_projection': ('CLIPVisionModelWithProjection', _MLP, 24),
    'clip': ('CLIPModel', _TWO, 24),
    'clip_classifier': ('CLIPForImageClassification', _TWO, 24),
    'siglip_vision': ('SiglipVisionModel', _MLP, 24),
    'siglip': ('SiglipModel', _TWO, 24),
    'siglip_classifier': ('SiglipForImageClassification', _TWO, 24),
}


def random_model(case: str) -> torch.nn.Module:
  """A model in evaluation mode, its every parameter drawn from the name of the class."""
  name, arguments, _ = CASES[case]
  cls = getattr(transformers, name)
  model = cls(cls.config_class(**arguments)).eval()
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if tensor.is_floating_point():
        tensor.copy_(torch.from_numpy(np.asarray(random_value(rng, name, tuple(tensor.shape)), np.float32)))
  return model


def outputs(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
  """The logits of a classifier, else what the vision tower pools."""
  images = torch.from_numpy(images)
  if hasattr(model, 'classifier'):
    return model(pixel_values=images).logits.numpy()
  tower = getattr(model, 'vision_model', model)
  return tower(pixel_values=images).pooler_output.numpy()


def case_arrays(case: str) -> dict[str, np.ndarray]:
  """What the file of this case holds."""
  model, side = random_model(case), CASES[case][2]
  images = np.random.default_rng([zlib.crc32(case.encode()), 1]).standard_normal((2, 3, side, side)).astype(np.float32)
  with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    model.save_pretrained(folder)
    tensors = load_file(f'{folder}/model.safetensors')
    config = json.loads(pathlib.Path(folder, 'config.json').read_text())
    found = outputs(model, images)
  tensors = {f'param:{name}': tensor for name, tensor in sorted(tensors.items())}
  return {'config': np.array(json.dumps(config)), 'images': images, 'outputs': found, **tensors}


def main() -> None:
  """Writes every case beside this script."""
  print(f'torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}')
  for case in CASES:
    path = pathlib.Path(__file__).with_name(f'tower_{case}.npz')
    np.savez_compressed(path, **case_arrays(case))
    print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
