"""A plan as tasks for a cluster, where each task has a slice to itself."""

import collections
import os
import re
from collections.abc import Sequence

from vit_jax.errors import UserError
from vit_jax.launch.task import Task
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun


def make(plan: Plan, workdir: str, extra: Sequence[str] = ()) -> dict[Task, list[PlannedRun]]:
  """{task: its runs}. A run is a task of its own; runs that share a trunk are one: the trunk, then one after the other.

  They follow their trunk on the slice that has trained it: no slice waits for another, and what they share is paid for
  once. The shortest comes first, so that results come early.

  Args:
    plan: of the sweep.
    workdir: a bucket path, for the runs' folders. It is not looked into: what is finished there ends at once.
    extra: further arguments of vit_jax.main, for every run.
  """
  workdir = workdir.rstrip('/')
  program = lambda run, *more: (*run.arguments, f'--workdir={workdir}/{run.name}-{run.config_hash}', *more, *extra)
  groups = collections.defaultdict(list)
  for run in plan.runs:
    groups[run.trunk].append(run)
  shared = {trunk.trunk_hash: trunk for trunk in plan.trunks if len(groups[trunk.trunk_hash]) > 1}
  tasks = {Task(run.name, run.config_hash, (program(run),)): [run] for run in plan.runs if run.trunk not in shared}
  for trunk_hash, trunk in shared.items():
    folder = f'{workdir}/trunks/{trunk_hash}'
    steps = ','.join(map(str, trunk.branch_steps))
    first = (*trunk.arguments, f'--workdir={folder}', f'--branch_steps={steps}', *extra)
    runs = sorted(groups[trunk_hash], key=lambda run: run.steps)
    programs = (first, *(program(run, f'--trunk={folder}') for run in runs))
    tasks[Task(_common_name(runs), trunk_hash, programs)] = runs
  return tasks


def check_workdir(workdir: str | None) -> None:
  """Raises UserError where it is no bucket path, which all hosts can write to."""
  if not workdir or not re.fullmatch(r'gs://[a-z0-9][a-z0-9._-]+(/\w[\w.-]*)*/?', workdir, re.ASCII):
    raise UserError(f'--workdir={workdir or ""}: a bucket path that all hosts can write to is needed, such as '
                    'gs://BUCKET/FOLDER')


def _common_name(runs):
  """What the names begin with, in whole words: width16_steps1000, width16_steps1500 -> width16."""
  common = os.path.commonprefix([f'{run.name}_' for run in runs])
  return common.rpartition('_')[0] or 'trunk'
