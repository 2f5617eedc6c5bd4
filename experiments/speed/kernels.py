"""Attention by Pallas kernels for TPUs beside the compiler's own: what the TPU compiler says of a training step.

  python experiments/speed/kernels.py        (needs the `plan` extra, no TPU)

ViT-B/16, fully sharded over v5e-16, for pictures of several sizes, in batches of about as many tokens as 1,024 pictures
of 224 pixels have. `flash` is JAX's older kernel; the others are keys of `layers.kernels.KERNELS`.
"""

import os
import subprocess
import sys

SIDES, KINDS = (224, 384, 512), ('plain', 'rows', 'splash', 'flash')


def flash(q_BHTK, k_BHTK, v_BHTK, scale):
  """As `splash.by_kernel`."""
  import jax.numpy as jnp
  from jax.experimental.pallas.ops.tpu import flash_attention as lib
  tokens = q_BHTK.shape[2]
  whole = -(-tokens // 128) * 128
  qkv = [jnp.pad(x, ((0, 0), (0, 0), (0, whole - tokens), (0, 0))) for x in (q_BHTK, k_BHTK, v_BHTK)]
  block = next(size for size in (512, 384, 256, 128) if whole % size == 0)
  sizes = lib.BlockSizes(**{name: block for name in lib.BlockSizes.__dataclass_fields__ if name != 'block_b'},
                         block_b=1)
  ids_BT = jnp.broadcast_to(jnp.arange(whole) >= tokens, (len(q_BHTK), whole)).astype(jnp.int32)
  y_BHTK = lib.flash_attention(*qkv, segment_ids=lib.SegmentIds(ids_BT, ids_BT), sm_scale=scale, block_sizes=sizes)
  return y_BHTK[:, :, :tokens]


def compiled(kind, side):
  """(batch size, what `rehearsal.worker` answers) of a step with attention of that kind."""
  from vit_jax import config, schema
  from vit_jax.cost import slices
  from vit_jax.layers import splash
  from vit_jax.rehearsal import compiler, worker
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.rehearsal.job import Choice
  from vit_jax.training import config as run_config
  if kind == 'flash':
    splash.by_kernel = flash
  c = config.load_recipe('configs/vit_b16.py')
  c.system.execution.attention_kernel = 'splash' if kind == 'flash' else kind
  c.data.image_size, c.data.batch_size = (side, side), 1024 * 14**2 // (side // 16)**2 // 16 * 16
  job, target = job_lib.open_job(run_config.cast(c)), slices.find('v5e-16')
  return c.data.batch_size, worker.answer({
      'config': schema.plain(job.with_choice(Choice((1, 16, 1), 'dots', 1))), 'image_shape': job.image_shape,
      'num_classes': job.num_classes, 'steps': job.schedule_steps,
      'target': compiler.topology(target)})


def one(kind, side):
  batch_size, answer = compiled(kind, side)
  print(f'{side} pixels, batch {batch_size}, {kind}: ' + (
      f'does not fit: {answer["refused"]}' if 'refused' in answer else
      f'peak {answer["peak_bytes"] / 1e9:.2f} GB, moved {answer["hbm_bytes"] / 1e9:.1f} GB'))


def main():
  from vit_jax import host
  for side in SIDES:
    for kind in KINDS:
      done = subprocess.run([sys.executable, __file__, kind, str(side)], capture_output=True, text=True,
                            env=os.environ | host.WITHOUT_TPU | {'JAX_PLATFORMS': 'cpu'})
      assert done.returncode == 0, done.stderr
      print(done.stdout.strip(), flush=True)


if __name__ == '__main__':
  one(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 2 else main()
