"""What the losses of all pairs add to a chip's memory, by the TPU's compiler: python experiments/pair_loss/memory.py

Prints a line of JSON for each form: the compiler's temporary bytes, and the largest buffer of the program. `ring` is
ours, `dense` makes the logits of all pairs at once, as the published JAX code does, split over the chips by rows.
"""

import json
import math
import re

from vit_jax import host

host.hush_absent_tpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from vit_jax.objectives.pair_loss import pair_loss  # noqa: E402
from vit_jax.parallel import mesh as mesh_lib  # noqa: E402
from vit_jax.rehearsal import worker  # noqa: E402

CHIPS, TOPOLOGY, WIDTH, BATCH = 16, 'v5e:4x4', 768, 32_768


def dense(kind, images, texts, captions, weight, scale, bias):
  """The shares of each pair from the logits of all."""
  del captions, weight
  logits = scale * images @ texts.T + bias
  if kind == 'sigmoid':
    return -jnp.sum(jax.nn.log_sigmoid((2 * jnp.eye(len(images)) - 1) * logits), axis=1)
  mine = jnp.diag(logits)
  return (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) / 2 - mine


def compiled(loss, kind, batch, chips=CHIPS, topology=TOPOLOGY):
  """The compiled value and gradients of a loss of `batch` pairs on absent chips."""
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=chips), worker.devices(topology, None, 1))
  rows, whole = mesh_lib.sharding(mesh, 'batch'), mesh_lib.sharding(mesh)
  array = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype, sharding=rows if shape else whole)
  arguments = (array(jnp.float32, batch, WIDTH), array(jnp.float32, batch, WIDTH), array(jnp.uint32, batch, 2),
               array(jnp.float32, batch), array(jnp.float32), array(jnp.float32))
  fn = jax.value_and_grad(lambda *rows: jnp.mean(loss(kind, *rows)), argnums=(0, 1, 4, 5))
  out = (whole, (rows, rows, whole, whole))
  return jax.jit(mesh_lib.traced_on(mesh, fn), out_shardings=out).lower(*arguments).compile()


def figures(program) -> dict:
  """The temporary bytes of a program on each chip, and the elements of its largest buffer."""
  shapes = re.findall(r'\b(?:f32|bf16|pred|u32|s32)\[([\d,]+)\]', program.as_text())
  largest = max(math.prod(map(int, shape.split(','))) for shape in shapes)
  return {'temporary_mb': round(program.memory_analysis().temp_size_in_bytes / 1e6, 1), 'largest_buffer': largest}


def main():
  for kind in ('sigmoid', 'softmax'):
    for name, loss in (('ring', pair_loss), ('dense', dense)):
      try:
        found = figures(compiled(loss, kind, BATCH))
      except jax.errors.JaxRuntimeError as error:
        found = {'refused': str(error).partition('\n')[0]}
      print(json.dumps({'loss': kind, 'form': name, 'batch': BATCH, 'chips': CHIPS, 'topology': TOPOLOGY,
                        'width': WIDTH, **found, 'jax': jax.__version__, 'numpy': np.__version__}), flush=True)


if __name__ == '__main__':
  main()
