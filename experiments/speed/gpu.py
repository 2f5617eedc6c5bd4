"""Training speed on one GPU: the card, its matmul, models of one recipe, small runs packed into one program.

  python experiments/speed/gpu.py [--tiny] [--seconds=100]        one JSON object a line
  python experiments/speed/gpu.py table OUT/gpu.log               their table

`gpu.sh` runs it with all the rest. A batch is one that `plan` estimates to fit, or its half, whichever is faster. What
does not begin within the seconds is left out, and said to be. --tiny takes shapes for any machine, to try the program
itself: its figures mean nothing.
"""

import argparse
import json
import sys
import time

# In the order of their worth, should the time run out: name -> (family, published size).
MODELS = {'ViT-B/16': ('vit', 'B/16'), 'ViT-L/16': ('vit', 'L/16'), 'ViT-S/16': ('vit', 'S/16'),
          'Swin-T': ('swin', 'T'), 'ConvNeXt-T': ('convnext', 'T'), 'ViT-So400m/14': ('vit', 'So400m/14')}
TINY = {'ViT, tiny': ('vit', dict(patch_size=8, width=64, depth=2, mlp_dim=128, num_heads=2)),
        'ResNet, tiny': ('resnet', dict(depths=(1,), widths=(32,), stem_width=8))}
BATCHES, TINY_BATCHES = (1024, 512, 256, 128, 64, 32), (8, 4)
PACKED, STEPS = 8, 20  # runs, and steps of a call


def say(**row):
  print(json.dumps(row), flush=True)


def matmul_peak(size):
  """FLOP/s of a large bfloat16 matmul, the best of five times ten."""
  import jax
  import jax.numpy as jnp
  a = jnp.ones((size, size), jnp.bfloat16)
  ten = jax.jit(lambda a: jax.lax.fori_loop(0, 10, lambda i, x: (x @ a) * jnp.bfloat16(1 / size), a))
  jax.block_until_ready(ten(a))
  best = float('inf')
  for _ in range(5):
    begins = time.perf_counter()
    jax.block_until_ready(ten(a))
    best = min(best, time.perf_counter() - begins)
  return 10 * 2 * size**3 / best


def job_of(family, size, batch, pixels, dtype='bfloat16'):
  """The training of a classifier of 1,000 classes as recipes have it, without a data set."""
  from vit_jax import config
  from vit_jax.models import convnext, swin, vit
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.training import config as run_config
  c = config.defaults(family)
  c.model.update(size if isinstance(size, dict) else dict(vit=vit, swin=swin, convnext=convnext)[family].size(size))
  c.model.dtype = dtype
  if family == 'vit':
    c.model.pool = 'gap'
  c.data.source, c.data.num_classes, c.data.image_size, c.data.channels = 'tfds:none', 1000, (pixels, pixels), 3
  c.data.batch_size, c.train.steps = batch, 1_000
  return job_lib.open_job(run_config.cast(c))


def batch_of(job, mesh):
  """Pictures and labels on the device."""
  import jax
  import jax.numpy as jnp

  from vit_jax.parallel import mesh as mesh_lib
  size = job.config.data.batch_size
  arrays = {'image': jax.random.randint(jax.random.key(0), (size, *job.image_shape), 0, 256).astype(jnp.uint8),
            'label': jnp.arange(size, dtype=jnp.int32) % 1000, 'weight': jnp.ones(size, jnp.float32)}
  return jax.device_put(arrays, mesh_lib.sharding(mesh, 'batch'))


def trained(job, seconds):
  """{images/s, GB of the program, seconds to compile, steps} of the compiled step on one device."""
  import jax

  from vit_jax import host
  from vit_jax.parallel import mesh as mesh_lib
  from vit_jax.training import state, step
  mesh = mesh_lib.single_device()
  begins = time.perf_counter()
  compiled = host.compile_step(step.trace(job.model, job.config, job.schedule_steps, mesh).lower(),
                               jax.default_backend())
  took, now, batch = time.perf_counter() - begins, state.create(job.model, job.config, mesh), batch_of(job, mesh)
  for _ in range(3):
    now, told = compiled(now, batch)
  jax.block_until_ready(told)
  steps, begins = 0, time.perf_counter()
  while steps < 5 or time.perf_counter() - begins < seconds:
    for _ in range(5):
      now, told = compiled(now, batch)
    jax.block_until_ready(told)
    steps += 5
  rate = steps * job.config.data.batch_size / (time.perf_counter() - begins)
  assert jax.numpy.isfinite(told['loss']), told
  return {'images_per_s': rate, 'peak_gb': compiled.memory_analysis().peak_memory_in_bytes / 1e9,
          'compile_s': took, 'steps': steps}


def planned(job, kind):
  """What `plan --gpu` says of it: the GPU of the table, or an H100 where it has none of this name."""
  from vit_jax.cost import gpus, hardware
  from vit_jax.rehearsal import run_plan
  from vit_jax.rehearsal.job import Choice
  target = gpus.find(f'{kind if kind in hardware.CHIPS and kind.startswith("NVIDIA") else "h100"}-1')
  return run_plan.estimated(job, target, Choice((1, 1, 1), 'none', 1), target.chip.hbm_bytes)


def model(name, family, size, batches, pixels, peak, device, seconds):
  """Says a row of a model: the faster of the largest batch that should fit and its half."""
  limit = 0.9 * (device.memory_stats() or {}).get('bytes_limit', float('inf'))
  rows = []
  for batch in batches:
    job = job_of(family, size, batch, pixels)
    plan = planned(job, device.device_kind)
    if plan.needs > limit:
      continue
    try:
      rows.append(trained(job, seconds) | {'batch': batch, 'planned_gb': plan.needs / 1e9})
    except Exception as error:  # a batch too many, or a kernel that this card does not have
      say(part='training', model=name, batch=batch, failed=f'{type(error).__name__}: {str(error)[:300]}')
    if len(rows) == 2:
      break
  if rows:
    best = max(rows, key=lambda row: row['images_per_s'])
    kernel = job.kernel(device.platform)[0]
    say(part='training', model=name, tried=[row['batch'] for row in rows], attention=kernel,
        mfu=best['images_per_s'] * job.spent_per_image / peak, flops_per_image=job.spent_per_image, **best)


def packing(tiny):
  """Says how much faster eight small runs are as one program than one after the other."""
  import jax

  from vit_jax.parallel import mesh as mesh_lib
  from vit_jax.training import state, step
  job = job_of('vit', dict(patch_size=7, width=64, depth=3, mlp_dim=256, num_heads=8), 8 if tiny else 64, 28, 'float32')
  mesh = mesh_lib.single_device()
  one, batch = step.make_step(job.model, job.config, 1_000), batch_of(job, mesh)
  steps = {1: one, PACKED: jax.vmap(one, in_axes=(0, None))}
  rates, state_1 = {}, state.create(job.model, job.config, mesh)
  states = {1: state_1, PACKED: jax.tree.map(lambda a: jax.numpy.stack([a] * PACKED), state_1)}
  for count, now in states.items():
    call = jax.jit(mesh_lib.traced_on(mesh, lambda now, batch, count=count: jax.lax.fori_loop(
        0, STEPS, lambda i, now: steps[count](now, batch)[0], now)))
    now = jax.block_until_ready(call(now, batch))
    begins = time.perf_counter()
    for _ in range(3):
      now = call(now, batch)
    jax.block_until_ready(now)
    rates[count] = 3 * STEPS * count / (time.perf_counter() - begins)
  say(part='packed', runs=PACKED, parameters=job.params, steps_per_s_alone=rates[1], steps_per_s_packed=rates[PACKED],
      ratio=rates[PACKED] / rates[1])


def measure(tiny, seconds):
  """Says all rows."""
  ends = time.monotonic() + seconds
  import jax

  from vit_jax import host
  from vit_jax.cost import hardware
  host.hush_absent_tpu()
  device = jax.devices()[0]
  measured, published = matmul_peak(256 if tiny else 8192), hardware.peak_flops(device.device_kind)
  say(part='card', kind=device.device_kind, platform=device.platform, jax=jax.__version__, tiny=tiny,
      memory_gb=(device.memory_stats() or {}).get('bytes_limit', 0) / 1e9, matmul_tflops=measured / 1e12,
      peak_tflops=published and published / 1e12)
  each = (TINY_BATCHES, 32, published or measured, device, 0.1) if tiny else (
      BATCHES, 224, published or measured, device, 2.0)
  for name, (family, size) in (TINY if tiny else MODELS).items():
    if time.monotonic() > ends:
      say(part='training', model=name, failed='not run: the time was over')
      continue
    model(name, family, size, *each)
  packing(tiny)


COLUMNS = ('model', 'batch', 'images/s', 'MFU', 'attention', 'peak GB', 'planned GB', 'compile s', 'timm images/s',
           'ratio')


def table(path):
  """Prints the log's rows as a table in Markdown, after the lines that are no rows of it."""
  lines = open(path).read().splitlines()
  print(''.join(f'- {line}\n' for line in lines if not line.startswith('{')), end='')
  rows = [json.loads(line) for line in lines if line.startswith('{')]
  peers = {row['model']: row for row in rows if row['part'] == 'timm' and 'images_per_s' in row}
  for row in rows:
    if 'model' not in row:
      print('- ' + ', '.join(f'{key} {value:,.4g}' if isinstance(value, float) else f'{key} {value}'
                             for key, value in row.items()))
  lines = []
  for row in (row for row in rows if row['part'] == 'training' and 'model' in row):
    if 'failed' in row:
      lines.append([row['model'], str(row.get('batch', '')), row['failed'], *[''] * (len(COLUMNS) - 3)])
      continue
    peer = peers.get(row['model'])
    beside = ['', ''] if peer is None else [f'{peer["images_per_s"]:,.0f}',
                                            f'{row["images_per_s"] / peer["images_per_s"]:.2f}']
    lines.append([row['model'], str(row['batch']), f'{row["images_per_s"]:,.0f}', f'{row["mfu"]:.1%}',
                  str(row['attention']), f'{row["peak_gb"]:.2f}', f'{row["planned_gb"]:.2f}', f'{row["compile_s"]:.0f}',
                  *beside])
  print()
  for line in (COLUMNS, ['---'] * len(COLUMNS), *lines):
    print(f'| {" | ".join(line)} |')


if __name__ == '__main__':
  if sys.argv[1:2] == ['table']:
    table(sys.argv[2])
  else:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tiny', action='store_true', help='small shapes')
    parser.add_argument('--seconds', type=float, default=100, help='after which no model begins')
    given = parser.parse_args()
    measure(given.tiny, given.seconds)
