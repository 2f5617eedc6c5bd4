"""Writes the golden file that holds our masked autoencoder to Hugging Face transformers' ViTMAEForPreTraining.

Run it where torch and transformers are installed, as make_golden.py says. Tests need neither:

  python tests/golden/make_mae_golden.py

`mae.npz` holds `config` (the arguments of ViTMAEConfig as JSON), `images` (float32 [B, C, H, W]), `noise` [B, T],
`mask` [B, T], `pixels` [B, T, P], `loss`, and for each parameter `param:NAME` and `grad:NAME` under
transformers' name.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

SHAPE = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, image_size=12,
             patch_size=4, num_channels=3, layer_norm_eps=1e-6, decoder_hidden_size=16, decoder_num_hidden_layers=1,
             decoder_num_attention_heads=2, decoder_intermediate_size=20, mask_ratio=0.75, norm_pix_loss=True)
BATCH = 3


def random_model(config: dict, seed: int) -> transformers.ViTMAEForPreTraining:
  """A model whose every parameter is drawn from the seed, but for the decoder's positions, which are fixed."""
  model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**config, attn_implementation='eager')).eval()
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    model.decoder.initialize_weights(model.vit.embeddings.patch_embeddings.num_patches)  # loading would do it
    for name, parameter in model.named_parameters():
      value = rng.standard_normal(tuple(parameter.shape))
      if name == 'decoder.decoder_pos_embed':
        continue
      if parameter.ndim == 1:
        value = ('norm' in name and name.endswith('weight')) + 0.3 * value
      elif parameter.ndim == 2 or name.endswith('projection.weight'):
        value = value / np.sqrt(np.prod(parameter.shape[1:]))
      parameter.copy_(torch.from_numpy(value.astype(np.float32)))
  return model


def arrays(config: dict, seed: int) -> dict[str, np.ndarray]:
  """What the file holds."""
  model, rng = random_model(config, seed), np.random.default_rng([seed, 1])
  size, patches = config['image_size'], (config['image_size'] // config['patch_size']) ** 2
  images = rng.standard_normal((BATCH, config['num_channels'], size, size)).astype(np.float32)
  noise = rng.random((BATCH, patches), np.float32)
  model.vit.embeddings.position_embeddings.requires_grad_(True)
  out = model(torch.from_numpy(images), noise=torch.from_numpy(noise))
  out.loss.backward()
  parameters = dict(model.named_parameters())
  gradients = {f'grad:{name}': p.grad.numpy() for name, p in parameters.items() if p.grad is not None}
  return {'config': np.array(json.dumps(config)), 'images': images, 'noise': noise, 'mask': out.mask.numpy(),
          'pixels': out.logits.detach().numpy(), 'loss': out.loss.detach().numpy(), **gradients,
          **{f'param:{name}': p.detach().numpy() for name, p in parameters.items()}}


def main() -> None:
  """Writes the file beside this script."""
  print(f'torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}')
  path = pathlib.Path(__file__).with_name('mae.npz')
  np.savez_compressed(path, **arrays(SHAPE, seed=1))
  print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
