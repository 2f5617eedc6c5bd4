"""Training speed of timm's models with torch.compile on one GPU, beside `gpu.py`: one JSON object a line.

  python experiments/speed/gpu_timm.py OUT/gpu.log [--tiny] [--seconds=60]

The models and batches are those of the log. bfloat16 by autocast, cross-entropy, AdamW, as ours. Without torch or timm
it says so.
"""

import argparse
import json
import time

NAMES = {'ViT-B/16': 'vit_base_patch16_224', 'ViT-L/16': 'vit_large_patch16_224', 'ViT-S/16': 'vit_small_patch16_224',
         'Swin-T': 'swin_tiny_patch4_window7_224', 'ConvNeXt-T': 'convnext_tiny',
         'ViT-So400m/14': 'vit_so400m_patch14_siglip_gap_224', 'ViT, tiny': 'test_vit'}


def say(**row):
  print(json.dumps({'part': 'timm', **row}), flush=True)


def trained(name, batch, seconds, tiny):
  """images/s of a training step."""
  import timm
  import torch
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.set_float32_matmul_precision('high')
  more = {'img_size': 32} if tiny else {}
  model = timm.create_model(NAMES[name], num_classes=1000, **more).to(device).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **({} if tiny else {'fused': True}))
  side = 32 if tiny else 224
  images = torch.rand(batch, 3, side, side, device=device)
  labels = torch.arange(batch, device=device) % 1000
  wait = torch.cuda.synchronize if device == 'cuda' else lambda: None

  def step():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16):
      loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()

  if not tiny:
    model = torch.compile(model)
  for _ in range(3):
    step()
  wait()
  steps, begins = 0, time.perf_counter()
  while steps < 5 or time.perf_counter() - begins < seconds:
    for _ in range(5):
      step()
    wait()
    steps += 5
  return steps * batch / (time.perf_counter() - begins)


def main(log, tiny, seconds):
  ends = time.monotonic() + seconds
  try:
    import timm
    import torch
  except ImportError as error:
    say(failed=f'not run: {error}')
    return
  say(torch=torch.__version__, timm=timm.__version__)
  for row in (json.loads(line) for line in open(log).readlines() if line.startswith('{')):
    if row['part'] != 'training' or 'failed' in row or row['model'] not in NAMES:
      continue
    if time.monotonic() > ends:
      say(model=row['model'], failed='not run: the time was over')
      continue
    try:
      say(model=row['model'], batch=row['batch'],
          images_per_s=trained(row['model'], row['batch'], 0.1 if tiny else 2.0, tiny))
    except Exception as error:
      say(model=row['model'], failed=f'{type(error).__name__}: {str(error)[:300]}')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('log', help='of gpu.py')
  parser.add_argument('--tiny', action='store_true', help='a small model')
  parser.add_argument('--seconds', type=float, default=60, help='after which no model begins')
  given = parser.parse_args()
  main(given.log, given.tiny, given.seconds)
