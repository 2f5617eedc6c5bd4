"""Writes siglip.npz and clip.npz: transformers' SiglipModel and CLIPModel of random parameters, and what they compute.

  python tests/golden/make_pairs_golden.py          where torch and transformers are installed
"""

import json
import pathlib

import numpy as np

SHAPE = {'hidden_size': 16, 'intermediate_size': 24, 'num_attention_heads': 2}
TEXT = SHAPE | {'num_hidden_layers': 2, 'vocab_size': 40, 'max_position_embeddings': 6}
VISION = SHAPE | {'num_hidden_layers': 1, 'image_size': 8, 'patch_size': 4}
END = 39


def arrays(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
  """Parameters 'param:NAME', the inputs, 'logits' of each picture with each text, and the loss."""
  import torch
  import transformers
  if kind == 'siglip':
    config = transformers.SiglipConfig(text_config=TEXT | {'projection_size': 16}, vision_config=VISION)
    model = transformers.SiglipModel(config)
  else:
    text = TEXT | {'eos_token_id': END, 'bos_token_id': 1, 'projection_dim': 12}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION | {'projection_dim': 12}, projection_dim=12)
    model = transformers.CLIPModel(config)
  model.eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
  pixels = torch.randn(5, 3, 8, 8, generator=generator)
  tokens = torch.tensor([[1, 5, 6, END, 0, 0], [1, 7, END, 0, 0, 0], [1, 9, 8, 7, 6, END], [1, END, 0, 0, 0, 0],
                         [1, 6, 5, END, 0, 0]])
  with torch.no_grad():
    out = model(input_ids=tokens, pixel_values=pixels, return_loss=True)
  found = {f'param:{name}': parameter.detach().numpy() for name, parameter in model.named_parameters()}
  return found | {'pixels': pixels.numpy(), 'tokens': tokens.numpy(), 'logits': out.logits_per_image.numpy(),
                  'loss': out.loss.numpy(),
                  'config': np.array(json.dumps({'model_type': kind, 'vision_config': VISION}))}


if __name__ == '__main__':
  for kind in ('siglip', 'clip'):
    np.savez_compressed(pathlib.Path(__file__).parent / f'{kind}.npz', **arrays(kind))
