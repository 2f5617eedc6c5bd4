"""What full, local and linear attention cost a ViT-Ti/16 as the picture grows: FLOPs, and the compiled memory.

  python experiments/attention_variants/cost.py

Memory is what XLA plans to hold beside inputs and outputs, for a batch of 8 (`memory_analysis`, on a CPU).
"""

import jax
import jax.numpy as jnp

from vit_jax.cost import flops
from vit_jax.models import PureModel, vit

BATCH = 8
KINDS = {'full': {}, 'local': dict(attention='local', attention_radius=3, global_tokens=1), 'linear': dict(
    attention='linear')}


def megabytes(fn, *args):
  return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes / 1e6


def main():
  print('pixels  tokens  attention  GFLOPs forward  GFLOPs training  MB forward  MB training')
  for side in (224, 512, 1024):
    for kind, fields in KINDS.items():
      model = PureModel('vit', vit.Config(**vit.size('Ti/16'), pool='gap', **fields), (side, side, 3), 1000)
      images = jax.ShapeDtypeStruct((BATCH, side, side, 3), jnp.float32)
      params = model.param_shapes()
      forward = lambda params, images, model=model: model.apply(params, {}, images)[0]
      loss = lambda params, images, forward=forward: jnp.sum(forward(params, images) ** 2)
      counted = flops.per_example(model)
      print(f'{side:6}  {(side // 16) ** 2:6}  {kind:9}  {counted[0] / 1e9:14.2f}  {counted[1] / 1e9:15.2f}  '
            f'{megabytes(forward, params, images):10,.0f}  {megabytes(jax.grad(loss), params, images):11,.0f}',
            flush=True)


if __name__ == '__main__':
  main()
