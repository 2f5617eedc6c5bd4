"""A plan as tasks for a cluster, where each task has a slice to itself."""

import os
import re
from collections.abc import Sequence

from vit_jax.errors import UserError
from vit_jax.launch.task import Task
from vit_jax.sweeps.plan import Plan, PlannedRun


def make(plan: Plan, workdir: str, extra: Sequence[str] = ()) -> list[Task]:
  """A task for each run; runs that share a trunk are one task: the trunk, then one after the other.

  They follow their trunk on the slice that has trained it: no slice waits for another, and what they share is paid for
  once. The shortest comes first, so that results come early.

  Args:
    plan: of the sweep.
    workdir: a bucket path, for the runs' folders. It is not looked into: what is finished there ends at once.
    extra: further arguments of vit_jax.main, for every run.
  """
  workdir = workdir.rstrip('/')
  program = lambda run, *more: (*run.arguments, f'--workdir={workdir}/{run.name}-{run.config_hash}', *more, *extra)
  tasks = [Task(run.name, run.config_hash, (program(run),)) for run in plan.runs if not run.trunk]
  for trunk in plan.trunks:
    folder = f'{workdir}/trunks/{trunk.trunk_hash}'
    steps = ','.join(map(str, trunk.branch_steps))
    first = (*trunk.arguments, f'--workdir={folder}', f'--branch_steps={steps}', *extra)
    runs = sorted(members(plan, trunk.trunk_hash), key=lambda run: run.steps)
    programs = (first, *(program(run, f'--trunk={folder}') for run in runs))
    tasks.append(Task(_common_name(runs), trunk.trunk_hash, programs))
  return tasks


def check_workdir(workdir: str | None) -> None:
  """Raises UserError where it is no bucket path, which all hosts can write to."""
  if not workdir or not re.fullmatch(r'gs://[a-z0-9][a-z0-9._-]+(/\w[\w.-]*)*/?', workdir, re.ASCII):
    raise UserError(f'--workdir={workdir or ""}: a bucket path that all hosts can write to is needed, such as '
                    'gs://BUCKET/FOLDER')


def members(plan: Plan, identity: str) -> list[PlannedRun]:
  """The runs of a task."""
  return [run for run in plan.runs if identity == (run.trunk or run.config_hash)]


def _common_name(runs):
  """What the names begin with, in whole words: width16_steps1000, width16_steps1500 -> width16."""
  common = os.path.commonprefix([f'{run.name}_' for run in runs])
  return common.rpartition('_')[0] or 'trunk'
