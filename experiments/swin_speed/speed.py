"""Swin-T's training step, ours and transformers', in turn on the same CPU.

  python experiments/swin_speed/speed.py TORCH_PYTHON > experiments/swin_speed/results/speed.log

TORCH_PYTHON is a Python with torch and transformers. Each side is a process that compiles or warms up, and then trains
one batch whenever it is told to; the other waits meanwhile. Float32, cross-entropy, AdamW, stochastic depth 0.2.
"""

import os
import statistics
import subprocess
import sys
import time

BATCH, PAIRS, WARM_UP = 8, 7, 2


def ours():
  """A function that does one training step."""
  import jax

  from vit_jax import config, host
  from vit_jax.data import device
  from vit_jax.models import swin
  from vit_jax.training import config as run_config
  from vit_jax.training import run as run_lib
  from vit_jax.training import state
  from vit_jax.training.step import make_train_step
  host.keep_freed_memory()
  c = config.defaults('swin')
  c.model.update(swin.size('T'))
  c.model.drop_path, c.system.execution.scan = 0.2, False
  c.data.source, c.data.num_classes, c.data.image_size, c.data.channels = f'random:{BATCH * 4}', 1000, (224, 224), 3
  c.data.batch_size, c.data.val_examples = BATCH, 8
  c.optimizer.clip_norm, c.train.steps = 0.0, 100
  run = run_lib.prepare(run_config.cast(c))
  step = jax.jit(make_train_step(run.model, run.config, run.steps, device.augment(c.data.augment)), donate_argnums=0)
  now = [state.create(run.model, run.config, run.mesh)]
  batch = run.place(next(run.data.train_batches(0, 0, 1)))

  def train():
    now[0], numbers = step(now[0], batch)
    return float(numbers['loss'])
  return train


def theirs():
  """The same with transformers' SwinForImageClassification."""
  import torch
  from transformers import SwinConfig, SwinForImageClassification
  model = SwinForImageClassification(SwinConfig(num_labels=1000, drop_path_rate=0.2)).train()  # the defaults: Swin-T
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))

  def train():
    optimizer.zero_grad()
    loss = model(pixel_values=images, labels=labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()
  return train


def serve(side):
  """Trains a step for each line of the input, and says how many seconds it took."""
  train = {'ours': ours, 'theirs': theirs}[side]()
  for _ in sys.stdin:
    start = time.perf_counter()
    train()
    print(time.perf_counter() - start, flush=True)


def main(torch_python):
  start = lambda python, side: subprocess.Popen([python, __file__, side], stdin=subprocess.PIPE,
                                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  sides = {'ours': start(sys.executable, 'ours'), 'theirs': start(torch_python, 'theirs')}
  times = {side: [] for side in sides}
  for turn in range(WARM_UP + PAIRS):
    for side, process in sides.items():
      process.stdin.write('\n')
      process.stdin.flush()
      seconds = float(process.stdout.readline())
      if turn >= WARM_UP:
        times[side].append(seconds)
        print(f'{side:6}  {BATCH / seconds:5.2f} images/s', flush=True)
  for process in sides.values():
    process.stdin.close()
  ratio = statistics.median(b / a for a, b in zip(*times.values()))
  medians = {side: BATCH / statistics.median(values) for side, values in times.items()}
  print(f'Swin-T, {BATCH} images of 224 x 224, float32, {os.cpu_count()} cores: ours {medians["ours"]:.2f} images/s, '
        f'transformers {medians["theirs"]:.2f}; ours is {ratio:.2f} times as fast (median of {PAIRS} pairs)')


if __name__ == '__main__':
  serve(sys.argv[1]) if sys.argv[1] in ('ours', 'theirs') else main(sys.argv[1])
