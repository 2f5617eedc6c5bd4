"""Training steps of ours and of transformers' on torch, in turn on the same CPU.

  python experiments/speed/training.py TORCH_PYTHON

TORCH_PYTHON is a Python with torch and transformers; `none` compares ours alone, with other options of the compiler.
For each shape each side is a process that compiles or warms up, and then trains one batch whenever it is told to; the
other waits meanwhile. Both: float32, cross-entropy, AdamW, as many threads as cores. Transformers' attention is torch's
own scaled_dot_product_attention, its default.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

PAIRS, WARM_UP = 11, 2
# name: (family, fields or published size, pixels, channels, classes, images a step)
SHAPES = {
    'ViT-S/16': ('vit', 'S/16', 224, 3, 1000, 16),
    'ViT-Ti/16': ('vit', 'Ti/16', 224, 3, 1000, 16),
    'ViT, 28 pixels, 1 M parameters': ('vit', dict(patch_size=4, width=144, depth=4, mlp_dim=576, num_heads=4), 28, 1,
                                       10, 128),
    'Swin-T': ('swin', 'T', 224, 3, 1000, 8),
}


def prepare(name, dtype='float32'):
  """Our run of a shape."""
  from vit_jax import config, host
  from vit_jax.models import swin, vit
  from vit_jax.training import config as run_config
  from vit_jax.training import run as run_lib
  host.hush_absent_tpu()
  host.keep_freed_memory()
  family, fields, pixels, channels, classes, batch_size = SHAPES[name]
  c = config.defaults(family)
  c.model.update(fields if isinstance(fields, dict) else {'vit': vit, 'swin': swin}[family].size(fields))
  c.model.dtype = dtype
  if family == 'swin':
    c.model.drop_path = 0.2
  c.system.execution.scan = False  # unrolled is faster on a CPU
  c.data.source, c.data.num_classes = f'random:{batch_size * 4}', classes
  c.data.image_size, c.data.channels = (pixels, pixels), channels
  c.data.batch_size, c.data.val_examples, c.train.steps = batch_size, 8, 100
  c.optimizer.clip_norm = 0.0
  return run_lib.prepare(run_config.cast(c))


def ours(name, dtype='float32', compile_step=None):
  """A function that does one training step, compiled as runs compile theirs unless it is said how."""
  import jax

  from vit_jax import host
  from vit_jax.training import state
  from vit_jax.training.step import trace
  run = prepare(name, dtype)
  lowered = trace(run.model, run.resolved, run.steps, run.mesh).lower()
  step = (compile_step or host.compile_step)(lowered, run.platform)
  now = [state.create(run.model, run.config, run.mesh)]
  batch = run.place(next(run.data.train_batches(0, 0, 1)))

  def train():
    now[0], numbers = step(now[0], batch)
    return float(jax.device_get(numbers['loss']))
  return train


def theirs(name):
  """The same with transformers."""
  import torch
  import transformers
  family, fields, pixels, channels, classes, batch_size = SHAPES[name]
  published = {'S/16': dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536),
               'Ti/16': dict(hidden_size=192, num_attention_heads=3, intermediate_size=768)}
  if family == 'swin':
    model = transformers.SwinForImageClassification(transformers.SwinConfig(num_labels=classes, drop_path_rate=0.2))
  else:
    if isinstance(fields, dict):
      names = dict(width='hidden_size', depth='num_hidden_layers', mlp_dim='intermediate_size',
                   num_heads='num_attention_heads', patch_size='patch_size')
      shape = {names[name]: value for name, value in fields.items()}
    else:
      shape = published[fields]
    model = transformers.ViTForImageClassification(transformers.ViTConfig(
        image_size=pixels, num_channels=channels, num_labels=classes, **shape))
  model = model.train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  images, labels = torch.randn(batch_size, channels, pixels, pixels), torch.randint(0, classes, (batch_size,))

  def train():
    optimizer.zero_grad()
    loss = model(pixel_values=images, labels=labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()
  return train


def serve(side, name):
  """Trains a step for each line of the input, and says how many seconds it took and its peak memory in GB."""
  from vit_jax import host
  others = {} if host.cpu_options() else host.YNN_FOR_REDUCTIONS
  make = {'ours': ours, 'theirs': theirs, 'bfloat16': lambda name: ours(name, 'bfloat16'), 'others': lambda name: ours(
      name, compile_step=lambda lowered, platform: lowered.compile(compiler_options=others))}[side]
  train = make(name)
  for _ in sys.stdin:
    start = time.perf_counter()
    train()
    took = time.perf_counter() - start
    print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, flush=True)


def duel(name, sides):
  """{side: ([seconds], GB)} of the two sides {side: python} in turn."""
  start = lambda python, side: subprocess.Popen([python, __file__, side, name], stdin=subprocess.PIPE,
                                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  processes = {side: start(python, side) for side, python in sides.items()}
  times, memory = {side: [] for side in sides}, {}
  for turn in range(WARM_UP + PAIRS):
    for side, process in processes.items():
      process.stdin.write('\n')
      process.stdin.flush()
      seconds, memory[side] = map(float, process.stdout.readline().split())
      if turn >= WARM_UP:
        times[side].append(seconds)
  for process in processes.values():
    process.communicate()
  return times, memory


def main(torch_python):
  import jax

  from vit_jax import host
  python = {'theirs': torch_python, 'others': sys.executable, 'bfloat16': sys.executable}
  others = 'the compiler\'s defaults' if host.cpu_options() else 'YNN for reductions only'
  if torch_python == 'none':
    pairs = [(name, 'others') for name in SHAPES]
  else:
    pairs = [(name, 'theirs') for name in SHAPES] + [('ViT-Ti/16', 'others')]
  peers = {'theirs': 'transformers', 'others': f'ours with {others}', 'bfloat16': 'ours in bfloat16'}
  print(f'{os.cpu_count()} cores, {_processor()}, jax {jax.__version__}, float32; images/s are medians of {PAIRS} '
        f'pairs of steps, ratios the median pair; a large matmul of XLA\'s: {_fastest_matmul() / 1e9:.0f} GFLOP/s',
        flush=True)
  for name, side in [*pairs, ('ViT-Ti/16', 'bfloat16')]:
    times, memory = duel(name, {'ours': sys.executable, side: python[side]})
    ratios = sorted(b / a for a, b in zip(*times.values(), strict=True))
    speeds = [SHAPES[name][-1] / statistics.median(values) for values in times.values()]
    gflops = speeds[0] * prepare(name).flops_per_example_train / 1e9
    print(f'{name}, batch {SHAPES[name][-1]}: ours {speeds[0]:.2f}, {peers[side]} {speeds[1]:.2f} images/s; '
          f'{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}); peak memory '
          f'{" and ".join(f"{gb:.2f}" for gb in memory.values())} GB; ours does {gflops:.0f} GFLOP/s', flush=True)


def _processor():
  with open('/proc/cpuinfo') as file:
    text = file.read()
  name = next(line.partition(': ')[2] for line in text.splitlines() if line.startswith('model name'))
  return f'{name}, AVX-512' if 'avx512f' in text else f'{name}, AVX2'


def _fastest_matmul():
  import jax

  from vit_jax.cost import hardware
  return max(hardware.matmul_speed(jax.devices()[0]) for _ in range(20))


if __name__ == '__main__':
  serve(*sys.argv[1:]) if len(sys.argv) > 2 else main(sys.argv[1])
