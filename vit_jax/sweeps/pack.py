"""The process of several jobs that are trained together: python -m vit_jax.sweeps.pack PARENT CORES JOBS (as JSON)

Like `child`, it runs on its share of the cores, holds the locks of its folders, and ends when its parent ends. Each
job's output goes to its own log.
"""

import functools
import json
import os
import sys
from pathlib import Path

from vit_jax import host
from vit_jax.survival.lock import BUSY, take


def main(parent: str, cores: str, jobs: str) -> int:
  host.die_with(int(parent))
  if cores and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, map(int, cores.split(',')))
  jobs = json.loads(jobs)
  locks = [take(Path(job['folder'])) for job in jobs]
  if None in locks:
    return BUSY
  from vit_jax import checkpoint, exits, goodput
  from vit_jax.data import pipeline
  from vit_jax.errors import UserError
  from vit_jax.printable import say
  from vit_jax.survival import stop
  from vit_jax.training import packed
  clock = goodput.Clock(1 / len(jobs))
  host.keep_freed_memory()
  host.hush_absent_tpu()
  checkpoint.hush_late_callbacks()
  try:
    open_data = functools.cache(pipeline.open_data)  # they all use the same data
    packed.train([_member(job, open_data) for job in jobs], clock)
  except stop.Stopped:
    return exits.PREEMPTED
  except UserError as error:
    say(f'error: {error}', sys.stderr)
    return 1
  return 0


def _member(job, open_data):
  from vit_jax.console import Console
  from vit_jax.sweeps import folders, sweep_plan
  from vit_jax.training import packed
  from vit_jax.training import run as run_lib
  from vit_jax.training.display import Display
  config = sweep_plan.parse([word for word in job['arguments'] if word.startswith('--config')])
  host.use_deterministic_ops(config.system.deterministic)
  run = run_lib.prepare_trunk(config, job['saves'], open_data) if job['saves'] else run_lib.prepare(config, open_data)
  display = Display(Console(file=open(Path(job['folder']) / folders.LOG, 'a'), width=120, highlight=False))
  display.header(run, job['name'], job['folder'])
  return packed.Member(run, job['folder'], display, job['trunk'])


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
