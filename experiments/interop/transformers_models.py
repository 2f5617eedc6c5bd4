"""Small models of transformers' vision classes with random parameters."""

import pathlib
import zlib

import numpy as np
import torch
import transformers
from compare import Outcome, compare, randomise

_VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, image_size=[16, 24],
            patch_size=8)
_SQUARE = dict(_VIT, image_size=16)
_DINO = {key: value for key, value in _SQUARE.items() if key != 'intermediate_size'}
_SWIN = dict(image_size=32, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4, patch_size=2)
_CNN = dict(hidden_sizes=[16, 32], depths=[2, 2])
_TEXT = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50)
_TWO = dict(text_config=_TEXT, vision_config=_SQUARE)
_BACKBONE = ('Model', 'ForImageClassification')
# {name in transformers: (endings of classes, arguments of its config)}; several of a class differ in a word.
CASES = {
    'ViT': (_BACKBONE, _VIT), 'ViT.gelu': (_BACKBONE, dict(_VIT, hidden_act='gelu_new', qkv_bias=False)),
    'DeiT': (('Model', 'ForImageClassification', 'ForImageClassificationWithTeacher'), _VIT),
    'Swin': (_BACKBONE, _SWIN), 'Swin.absolute': (_BACKBONE, dict(_SWIN, use_absolute_embeddings=True)),
    'Swinv2': (_BACKBONE, _SWIN),
    'Swinv2.trained': (_BACKBONE, dict(_SWIN, pretrained_window_sizes=[3, 2], image_size=48)),
    'ResNet': (_BACKBONE, dict(_CNN, embedding_size=8)),
    'ResNet.basic': (_BACKBONE, dict(_CNN, embedding_size=8, layer_type='basic')),
    'ResNet.first': (_BACKBONE, dict(_CNN, embedding_size=8, downsample_in_first_stage=True)),
    'ResNet.bottleneck': (_BACKBONE, dict(_CNN, embedding_size=8, downsample_in_bottleneck=True)),
    'RegNet': (_BACKBONE, dict(_CNN, embedding_size=8, groups_width=8)),
    'RegNet.x': (_BACKBONE, dict(_CNN, embedding_size=8, groups_width=8, layer_type='x')),
    'ConvNext': (_BACKBONE, dict(_CNN, num_stages=2)),
    'ConvNext.scale': (_BACKBONE, dict(_CNN, num_stages=2, layer_scale_init_value=0.0, hidden_act='gelu_new')),
    'ConvNextV2': (_BACKBONE, dict(_CNN, num_stages=2)),
    'Dinov2': (_BACKBONE, _DINO), 'Dinov2.swiglu': (_BACKBONE, dict(_DINO, use_swiglu_ffn=True)),
    'Dinov2WithRegisters': (_BACKBONE, _DINO),
    'DINOv3ViT': (('Model',), dict(_SQUARE, num_register_tokens=2)),
    'DINOv3ViT.gated': (('Model',), dict(_SQUARE, use_gated_mlp=True, hidden_act='silu')),
    'DINOv3ConvNext': (('Model',), _CNN),
    'CLIPVision': (('Model', 'ModelWithProjection'), _SQUARE), 'CLIP': (('ForImageClassification',), _TWO),
    'SiglipVision': (('Model',), _SQUARE), 'Siglip': (('ForImageClassification',), _TWO),
    'ViTMSN': (_BACKBONE, _VIT),
    'ViTMAE': (('Model',), dict(_SQUARE, mask_ratio=0.0)),  # or it would draw a mask
    'Beit': (_BACKBONE, dict(_SQUARE)), 'Data2VecVision': (_BACKBONE, dict(_SQUARE)), 'IJepa': (_BACKBONE, _SQUARE),
    'PvtV2': (_BACKBONE, {}), 'MobileViT': (_BACKBONE, {}),
}


def names() -> list[str]:
  """The cases, as CLASS or CLASS.word."""
  return [f'{name.partition(".")[0]}{ending}{"." if "." in name else ""}{name.partition(".")[2]}'
          for name, (endings, _) in CASES.items() for ending in endings]


def _find(name):
  for case, (endings, fields) in CASES.items():
    kind, dot, word = case.partition('.')
    for ending in endings:
      if name == f'{kind}{ending}{dot}{word}':
        return kind, ending, fields
  raise KeyError(name)


def outcome(name: str, place: pathlib.Path, changes: dict | None = None, seed: int = 0) -> Outcome:
  """Builds a model, saves it as transformers does, and compares the import."""
  kind, ending, fields = _find(name)
  fields, key = {**fields, **(changes or {})}, [zlib.crc32(name.encode()), seed]
  try:
    cls = getattr(transformers, f'{kind}{ending}')
    labels = {'num_labels': 7} if 'Classification' in ending else {}
    model = randomise(cls(cls.config_class(**fields, **labels)), key)
    size = fields.get('image_size') or fields.get('vision_config', {}).get('image_size') or 64
    size = tuple(size) if isinstance(size, list) else (size, size)
    images = np.random.default_rng([*key, 1]).standard_normal((2, 3, *size)).astype(np.float32)
    with torch.no_grad():
      found = model(pixel_values=torch.from_numpy(images))
      if ending == 'ModelWithProjection':  # read without the projection into the space of texts
        found = model.vision_model(pixel_values=torch.from_numpy(images))
    theirs = _pooled(found, kind).numpy()
    model.save_pretrained(place)
  except Exception as error:  # whatever transformers raises
    return Outcome(name, 'not built', f'{type(error).__name__}: {error}'[:200])
  return compare(name, place, images, theirs)


def _pooled(found, kind):
  """Logits, or what a classifier would read of a backbone."""
  if getattr(found, 'logits', None) is not None:
    return found.logits
  if kind in ('ViT', 'DeiT', 'ViTMSN', 'ViTMAE', 'IJepa'):  # their own pooling is of no classifier
    return found.last_hidden_state[:, 0]
  pooled = getattr(found, 'pooler_output', None)
  return found.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
