"""What a compiled step moves through a TPU's memory, by instruction: the loop in which a step's program is improved.

  python experiments/speed/movers.py RECIPE SLICE [FIELD=VALUE ..] [top=40] [packed=1] [dump=FILE]
  python experiments/speed/movers.py vit_b16 v5e-16 system.mesh.data=1 system.mesh.fsdp=16 model.depth=3

Compiles the training step of configs/RECIPE.py as `plan` does (extra `plan`, no TPU). It prints one line of figures and
the largest movers: bytes per step, how often, the instruction, its result, and the name that JAX gave it. `packed`
compiles so many runs as one program, as sweeps pack them. `dump` keeps the program's text. With few layers a change is
judged in a fraction of the time.
"""

import ast
import collections
import os
import re
import sys
import time

from vit_jax import host


def load(recipe, fields):
  from vit_jax import config
  c = config.load_recipe(f'configs/{recipe}.py')
  for name, text in fields.items():
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    c.update_from_flattened_dict({name: value})
  return c


def movers(module, top):
  """Prints the instructions that move most; those that differ in numbers alone are one."""
  from vit_jax.rehearsal import traffic
  moved, times = collections.Counter(), collections.Counter()
  for computation, instruction, count in module.executed():
    name = re.search(r'op_name="([^"]*)"', instruction.attributes)
    name = re.sub(r'\d+', '#', re.sub(r'jit\(\w+\)/', '', name[1])) if name else ''
    key = instruction.opcode, re.sub(r'\{[^}]*\}', '', instruction.shape)[:90], name[-70:]
    moved[key] += count * traffic.moved(module, computation, instruction)
    times[key] += count
  for key, size in moved.most_common(top):
    print(f'{size / 1e9:7.3f} x{times[key]:<4d} {key[0]:10s} {key[1]:60s} {key[2]}')


def lower(job, config, mesh, packed):
  """The lowered step of a run, or of so many equal runs that are one program (`training.packed`)."""
  import jax

  from vit_jax.models import PureModel
  from vit_jax.parallel import mesh as mesh_lib
  from vit_jax.training import step
  model = PureModel(config.family, config.model, job.image_shape, job.num_classes, config.system.execution,
                    job.objective)
  traced = step.trace(model, config, job.schedule_steps, mesh, job.teacher)
  if packed == 1:
    return traced.lower()
  stacked = lambda a: jax.ShapeDtypeStruct((packed, *a.shape), a.dtype, sharding=mesh_lib.sharding(mesh))
  operands = [jax.tree.map(stacked, operand) for operand in traced.args_info[0]]
  every = jax.vmap(step.make_step(model, config, job.schedule_steps))
  return jax.jit(mesh_lib.traced_on(mesh, every), donate_argnums=0).lower(*operands)


def figures(job, target, choice, packed, memory, module):
  """The line of figures of a compiled step, but for its times."""
  from vit_jax.rehearsal import collectives, estimate, roofline, traffic
  moved, sent = traffic.hbm_bytes(module), collectives.sent(module)
  per_device = packed * job.config.data.batch_size / target.devices
  flops = job.executed_flops(choice.remat, choice.microbatches) * per_device
  times = roofline.times(target.chip, estimate.Work(flops, moved, sent['within'], sent['between']))
  mfu = job.spent_per_image * per_device * target.chip.devices / target.chip.peak_flops / times.floor
  least = estimate.work(job, target, choice).within_bytes
  kernel, depths = job.kernel('tpu')[0], job.stacks('tpu')
  layers = ', '.join(f'{depth} {"scanned" if scan else "unrolled"}' for depth, scan in depths.items())
  return (f'moved {moved / 1e9:.2f} GB peak {memory.peak_memory_in_bytes / 1e9:.2f} '
          f'state {memory.alias_size_in_bytes / 1e9:.2f} compute {times.compute * 1e3:.1f} ms '
          f'hbm {times.hbm * 1e3:.1f} ms interconnect {times.interconnect * 1e3:.1f} ms limit {times.limit} '
          f'MFU {mfu:.0%} sent {sent["within"] / 1e6:.0f} MB least {least / 1e6:.0f} MB '
          f'recomputed {job.recomputed_share(choice.remat, choice.microbatches):.1%} '
          f'attention {kernel} layers {layers} micro-batches {choice.microbatches}')


def main():
  recipe, name, *rest = sys.argv[1:]
  fields = dict(part.split('=', 1) for part in rest)
  top, packed, dump = int(fields.pop('top', 40)), int(fields.pop('packed', 1)), fields.pop('dump', None)
  from vit_jax.cost import slices
  from vit_jax.parallel import mesh as mesh_lib
  from vit_jax.rehearsal import compiler, hlo, worker
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.training import config as run_config
  job, target = job_lib.open_job(run_config.cast(load(recipe, fields))), slices.find(name)
  choice = job_lib.choices_on(job, target)[0]
  config = job.with_choice(choice)
  mesh = mesh_lib.make_mesh(config.system.mesh, worker.devices(**compiler.topology(target)))
  start = time.process_time()  # of all threads: on a busy machine the time of day says nothing
  lowered = lower(job, config, mesh, packed)
  traced = time.process_time()
  compiled = lowered.compile()
  seconds, text = time.process_time() - traced, compiled.as_text()
  if dump:
    with open(dump, 'w') as file:
      file.write(text)
  module = hlo.parse(text)
  print(f'{" ".join(sys.argv[1:])}: {figures(job, target, choice, packed, compiled.memory_analysis(), module)} '
        f'processor time: trace {traced - start:.0f} s compile {seconds:.0f} s')
  movers(module, top)


if __name__ == '__main__':
  os.environ.update(host.WITHOUT_TPU, JAX_PLATFORMS='cpu')
  main()
