"""A plan as tasks for a cluster, where each task has a slice of its own."""

import collections
import os
from collections.abc import Sequence

from vit_jax.launch.task import Task
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun


def make(plan: Plan, workdir: str, extra: Sequence[str] = ()) -> dict[Task, list[PlannedRun]]:
  """The tasks of a plan, as {task: its runs}.

  A run is a task of its own. Runs that share a trunk form one task: the trunk, then its runs one after the other. They
  follow their trunk on the same slice, so that no slice waits for another and the shared part is paid for once. The
  shortest run comes first, so that results come early.

  Args:
    plan: the plan of the sweep.
    workdir: the bucket path of the runs' folders. It is not read: a run that is finished there ends at once.
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


def _common_name(runs):
  """The common prefix of the runs' names, in whole words: width16_steps1000, width16_steps1500 -> width16."""
  common = os.path.commonprefix([f'{run.name}_' for run in runs])
  return common.rpartition('_')[0] or 'trunk'
