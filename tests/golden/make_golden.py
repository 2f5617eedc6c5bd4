"""Writes the golden files that hold our ViT to Hugging Face transformers' ViTForImageClassification.

Run it where torch and transformers are installed (the CPU build of torch is enough); tests that compare with the files
need neither:

  pip install torch==2.13.0 transformers==5.23.0 numpy==2.4.6
  python tests/golden/make_golden.py

Each `vit_CASE.npz` holds `config` (the arguments of ViTConfig as JSON), `images` (float32 [B, C, H, W]), `logits`
(float32 [B, classes]) and one `param:NAME` for each parameter, under transformers' name. No array is pickled.
Parameters and images come from the seed; another processor or version of torch may change the logits' last bits.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import transformers

# Every size differs from the others it could be mistaken for, and the picture is wider than high. Ours has epsilon
# 1e-6 as in the original code; transformers' default is 1e-12.
SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=(16, 24),
             patch_size=4, num_channels=3, num_labels=7, layer_norm_eps=1e-6, hidden_act='gelu', qkv_bias=True)
CASES = {
    'qkv_bias': SHAPE,
    'no_qkv_bias': dict(SHAPE, qkv_bias=False),
    'gelu_tanh': dict(SHAPE, hidden_act='gelu_pytorch_tanh'),
}


def random_value(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Normal values for one parameter, none of them left at a 0 or 1 that would hide a mistake.

  Kernels keep the variance of what goes through them. Embeddings are small, a variance of about 1e-4, so that the
  epsilon of the first norm is seen in the logits.
  """
  value = rng.standard_normal(shape)
  if 'embeddings' in name:
    scale = 0.01 / np.sqrt(np.prod(shape[1:])) if name.endswith('projection.weight') else 0.01
    return (scale * value).astype(np.float32)
  if len(shape) == 1:
    is_norm_scale = 'layernorm' in name and name.endswith('weight')
    return (is_norm_scale + 0.3 * value).astype(np.float32)
  return (value / np.sqrt(shape[1])).astype(np.float32)


def random_model(config: dict, seed: int) -> transformers.ViTForImageClassification:
  """A ViT in evaluation mode whose every parameter is drawn from the seed."""
  # Eager attention is the textbook formula, and the only one that returns its weights.
  model = transformers.ViTForImageClassification(transformers.ViTConfig(**config, attn_implementation='eager')).eval()
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      parameter.copy_(torch.from_numpy(random_value(rng, name, tuple(parameter.shape))))
  return model


def random_images(config: dict, batch_size: int, seed: int) -> np.ndarray:
  """Unit normal pictures, float32 [B, C, H, W]."""
  shape = (batch_size, config['num_channels'], *config['image_size'])
  return np.random.default_rng([seed, 1]).standard_normal(shape).astype(np.float32)


def parameters(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """All that the model saves, by transformers' names."""
  return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def outputs(model: transformers.ViTForImageClassification, images_BCHW: np.ndarray) -> dict[str, np.ndarray]:
  """logits [B, C], attention [L, B, H, T, T], features [L, B, T, D] after each block, pre_logits [B, D]."""
  with torch.no_grad():
    out = model(torch.from_numpy(images_BCHW), output_attentions=True, output_hidden_states=True)
    features = torch.stack(out.hidden_states[1:])  # the first is the embedding
    pre_logits = model.vit.layernorm(features[-1])[:, 0]
  return dict(logits=out.logits.numpy(), attention=torch.stack(out.attentions).numpy(), features=features.numpy(),
              pre_logits=pre_logits.numpy())


def case_arrays(case: str) -> dict[str, np.ndarray]:
  """What the file of this case holds."""
  config, seed = CASES[case], zlib.crc32(case.encode())
  model, images = random_model(config, seed), random_images(config, 2, seed)
  return {'config': np.array(json.dumps(config)), 'images': images, 'logits': outputs(model, images)['logits'],
          **{f'param:{name}': value for name, value in parameters(model).items()}}


def main() -> None:
  """Writes every case beside this script."""
  print(f'torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}')
  for case in CASES:
    path = pathlib.Path(__file__).with_name(f'vit_{case}.npz')
    np.savez_compressed(path, **case_arrays(case))
    print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
