"""What the loss of all pairs adds to SigLIP's whole training step, by the TPU's compiler.

  python experiments/pair_loss/step.py v5e-16 ring full 4 [scan] [depth=3]     slice, form, remat, micro-batches

Compiles the step of configs/siglip_b16.py, batch 32,768, for absent chips, and prints a line of JSON. `ring` is our
loss, `dense` makes the logits of all pairs at once, `pairless` compares each picture with its own text alone: the step
without a loss of pairs, in which micro-batches compute nothing twice. The FLOPs of both are counted as those of `ring`.
`classifier` is the image tower as a classifier of 1,000 classes, at the same batch. With `scan`, layers are scanned and
not unrolled, and with `depth` there are fewer in each tower: a fraction of the minutes of compiling.
"""

import dataclasses
import json
import math
import sys

from vit_jax import host

host.hush_absent_tpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from memory import dense  # noqa: E402

from vit_jax import recipe  # noqa: E402
from vit_jax.cost import slices  # noqa: E402
from vit_jax.models import PureModel  # noqa: E402
from vit_jax.objectives import contrast  # noqa: E402
from vit_jax.parallel import mesh as mesh_lib  # noqa: E402
from vit_jax.rehearsal import collectives, compiler, estimate, hlo, roofline, traffic, worker  # noqa: E402
from vit_jax.rehearsal import job as job_lib  # noqa: E402
from vit_jax.training import config as run_config  # noqa: E402
from vit_jax.training import step  # noqa: E402

RECIPES = {'classifier': 'configs/vit_b16.py'}
BATCH = 32_768


class Dense(contrast.Contrast):
  """The logits of all pairs at once."""

  def of_all(self):
    return None

  def loss(self, outputs, batch):
    loss_B = dense(self.config.name, outputs['image'], outputs['text'], None, None, outputs['scale'][0],
                   outputs['bias'][0])
    return {'loss': loss_B, 'scale': outputs['scale']}


class Pairless(contrast.Contrast):
  """Each picture and its own text."""

  whole_batch = False

  def loss(self, outputs, batch):
    logits_B = outputs['scale'] * jnp.sum(outputs['image'] * outputs['text'], axis=1) + outputs['bias']
    return {'loss': jax.nn.softplus(-logits_B), 'scale': outputs['scale']}


FORMS = {'dense': Dense, 'pairless': Pairless}


def open_job(form, remat, microbatches, scan, depth):
  """The run: SigLIP's, or its image tower's as a classifier."""
  c = recipe.load_recipe(RECIPES.get(form, 'configs/siglip_b16.py'))
  c.system.execution.remat, c.system.microbatches = remat, microbatches
  c.system.execution.scan = True if scan else None
  if depth:
    c.model.depth = depth
    if form != 'classifier':
      c.loss.text.depth = depth
  if form == 'classifier':
    c.data.batch_size, c.model.dtype, c.model.pool, c.schedule.warmup_steps = BATCH, 'bfloat16', 'map', 1_000
  return job_lib.open_job(run_config.cast(c))


def figures(form, name, *options) -> dict:
  """The compiler's figures of a step on a slice."""
  job, target = open_job(form, *options), slices.find(name)
  choice = job_lib.choices_on(job, target)[0]
  objective = FORMS[form].of(job.config) if form in FORMS else job.objective
  model = PureModel(job.config.family, job.config.model, job.image_shape, job.num_classes,
                    job.config.system.execution, objective)
  mesh = mesh_lib.make_mesh(job.config.system.mesh, worker.devices(**compiler.topology(target)))
  program = step.trace(model, job.config, job.schedule_steps, mesh).lower().compile()
  text, memory = program.as_text(), program.memory_analysis()
  module = hlo.parse(text)
  sent = collectives.sent(module)
  work = dataclasses.replace(estimate.work(job, target, choice), hbm_bytes=traffic.hbm_bytes(module),
                             within_bytes=sent['within'], between_bytes=sent['between'])
  times = roofline.times(target.chip, work)
  peak_flops = target.chips * target.chip.peak_flops
  pairs = sorted({array.shape for array in hlo.arrays(text) if BATCH in array.shape}, key=math.prod, reverse=True)
  return {'peak_mb': round(memory.peak_memory_in_bytes / 1e6, 1),
          'temporary_mb': round(memory.temp_size_in_bytes / 1e6, 1),
          'limit': times.limit, 'floor_s': round(times.floor, 4), 'compute_s': round(times.compute, 4),
          'hbm_s': round(times.hbm, 4), 'interconnect_s': round(times.interconnect, 4),
          'mfu_at_floor': round(job.spent_per_image * BATCH / (times.floor * peak_flops), 4),
          'recomputed': round(job.recomputed_share(choice.remat, choice.microbatches), 4),
          'with_batch': pairs[:8]}  # arrays with a side as long as the whole batch, the largest first


def main(name, form, remat, microbatches, *rest):
  scan, depth = 'scan' in rest, next((int(one[6:]) for one in rest if one.startswith('depth=')), None)
  try:
    found = figures(form, name, remat, int(microbatches), scan, depth)
  except jax.errors.JaxRuntimeError as error:
    found = {'refused': str(error).partition('\n')[0], 'needs_mb': (worker._needed(str(error)) or 0) / 1e6}
  row = {'slice': name, 'form': form, 'batch': BATCH, 'remat': remat, 'microbatches': int(microbatches),
         'layers': 'scanned' if scan else 'unrolled', 'depth': depth or 12}
  print(json.dumps(row | found | {'jax': jax.__version__}), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
