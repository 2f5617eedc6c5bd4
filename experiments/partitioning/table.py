"""Memory and traffic of a training step on every mesh of a slice, both ways through a block, by the TPU compiler.

  python experiments/partitioning/table.py --tpu=v5e-8 --meshes='2,2,2;1,8,1'
"""

import itertools
import math
import sys

from absl import app, flags

_TPU = flags.DEFINE_string('tpu', 'v5e-8', 'The slice to compile for.')
_MESHES = flags.DEFINE_string('meshes', '', 'Sizes data,fsdp,tensor of some meshes, `;` between them; all if empty.')
_BATCH = flags.DEFINE_integer('batch_size', 1024, 'Images a step.')
_REMAT = flags.DEFINE_string('remat', 'dots', 'What is recomputed in the backward pass.')
_KINDS = {'all-gather': 'gather', 'reduce-scatter': 'scatter', 'all-reduce': 'reduce', 'all-to-all': 'to-all',
          'collective-permute': 'permute'}


def main(_) -> None:
  from vit_jax import config
  from vit_jax.cost import slices
  from vit_jax.errors import UserError
  from vit_jax.rehearsal import compiler, estimate
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.training import config as run_config

  target = slices.find(_TPU.value)
  print(f'ViT-B/16, batch {_BATCH.value}, remat={_REMAT.value}, {target}: memory of a chip, MB that it sends a step')
  print(f'{"data":>4} {"fsdp":>4} {"tensor":>6}  {"blocks":9} {"peak GB":>7}',
        *(f'{short:>8}' for short in _KINDS.values()), f'{"sum":>8} {"minimum":>8} {"compile s":>9}', flush=True)
  for sizes, blocks in itertools.product(_meshes(target.devices), ('jit', 'shard_map')):
    recipe = config.load_recipe('configs/vit_b16.py')
    recipe.data.batch_size, recipe.system.execution.blocks = _BATCH.value, blocks
    job = job_lib.open_job(run_config.cast(recipe))
    choice = job_lib.Choice(sizes, _REMAT.value, 1)
    start = '{:>4} {:>4} {:>6}  {:9}'.format(*sizes, blocks)
    try:
      job_lib.check(job, target, choice)
    except UserError as error:
      if blocks == 'jit':
        print('{:>4} {:>4} {:>6}  refused: {}'.format(*sizes, error), flush=True)
      continue
    outcome = compiler.compile_step(job, target, choice)
    if isinstance(outcome, compiler.Refused):
      print(f'{start} does not fit: {outcome.why[:80]}', flush=True)
      continue
    megabytes = [outcome.collectives.get(kind, {'bytes': 0})['bytes'] / 1e6 for kind in _KINDS]
    minimum = estimate.work(job, target, choice).within_bytes / 1e6
    print(f'{start} {outcome.peak_bytes / 1e9:7.2f}', *(f'{value:8.1f}' for value in megabytes),
          f'{sum(megabytes):8.1f} {minimum:8.1f} {outcome.compile_s:9.1f}', flush=True)


def _meshes(devices):
  if _MESHES.value:
    return [tuple(int(n) for n in sizes.split(',')) for sizes in _MESHES.value.split(';')]
  divisors = [n for n in range(1, devices + 1) if devices % n == 0]
  return [(d, f, t) for t, f, d in itertools.product(divisors, repeat=3) if math.prod((d, f, t)) == devices]


if __name__ == '__main__':
  sys.path.insert(0, '.')
  app.run(main)
