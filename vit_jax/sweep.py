"""Runs many configs: python -m vit_jax.sweep --sweep=FILE.py[:ARG] [--workdir=DIR] [--jobs=N] [--dry_run | --status]

FILE has a get_sweep() that gives a vit_jax.sweeps.Sweep. The plan is shown before anything starts; the same command
goes on where it was stopped, and runs that another sweep has finished in the same folder are not run again. Exit codes:
0 done, 1 an error, or a run that failed; 130 after Ctrl-C and 42 after SIGTERM, with everything resumable.
"""

import concurrent.futures
import multiprocessing
import pathlib
import shlex
import signal

from absl import flags

from vit_jax import cli
from vit_jax.errors import UserError

_SWEEP = flags.DEFINE_string('sweep', None, 'A file with get_sweep(): FILE.py, or FILE.py:ARG.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'The folder of the runs\' folders; default runs/NAME.')
_JOBS = flags.DEFINE_integer('jobs', None, 'Processes at a time; default: one a core for small models on a CPU, else '
                             'one.', 1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Show the plan, start nothing.')
_STATUS = flags.DEFINE_bool('status', False, 'Show where the runs of --workdir stand, start nothing.')


def main() -> int:
  if _SWEEP.value is None and not (_STATUS.value and _WORKDIR.value):
    raise UserError('--sweep is missing, as in --sweep=experiments/fashion_mnist_law/sweep.py')
  from vit_jax.sweeps import folders, jobs
  from vit_jax.sweeps.display import Display
  workdir, display = _WORKDIR.value or f'runs/{_name()}', Display()
  if _STATUS.value:
    display.status([job for plan in folders.read_plans(workdir) for job in jobs.make(plan, workdir)])
    return 0
  plan = _plan(_SWEEP.value)
  everything = jobs.make(plan, workdir)
  left = jobs.to_do(everything)
  processes = _JOBS.value or jobs.default_processes(plan)
  seconds = jobs.seconds(everything, plan, workdir, processes)
  display.plan(plan, everything, seconds)
  display.totals(plan, everything, left, jobs.makespan(left, seconds, processes), processes)
  if _DRY_RUN.value:
    return 0
  if '://' in workdir:
    raise UserError(f'--workdir={workdir}: runs that are started on this machine keep their logs and locks in a local '
                    'folder')
  folders.write_plan(workdir, _name(), plan)
  code = _run(jobs.by_priority(left, seconds), processes, display) if left else 0
  _summary(plan, everything, workdir, display)
  return code


def _plan(sweep):
  """The plan, made in a process of its own: it opens the devices, which the runs must find free."""
  from vit_jax.sweeps import plan as plan_lib
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
    return pool.submit(plan_lib.make, sweep).result()


def _run(left, processes, display):
  from vit_jax.sweeps.runner import Runner
  display.note('')
  display.start(len(left))
  try:
    return Runner(left, processes, display).run()
  finally:
    display.stop()


def _summary(plan, everything, workdir, display):
  """What is finished, what it saved, and the next command."""
  from vit_jax.sweeps.display import saving
  runs = [job for job in everything if not job.saves]
  done = sum(job.finished() for job in runs)
  display.note(f'\n{done} of {len(runs)} runs finished{saving(plan) if done == len(runs) else ""}')
  if done < len(runs):
    display.note('go on       the same command; --status shows where each run stands')
  if done:
    sizes, lengths = ({getattr(run, name) for run in plan.runs} for name in ('params', 'examples'))
    form = '--form=chinchilla' if len(sizes) > 1 and len(lengths) > 1 else f'--x={_x(sizes)}'
    command = shlex.join(['python', '-m', 'vit_jax.law', workdir, form, f'--out={workdir}/law'])
    display.note(f'fit a law   {command}')


def _x(sizes):
  return 'params' if len(sizes) > 1 else 'examples'


def _name():
  """experiments/fashion_mnist_law/sweep.py -> fashion_mnist_law; other files by their own name."""
  path = pathlib.Path(_SWEEP.value.partition(':')[0])
  return path.absolute().parent.name if path.stem == 'sweep' else path.stem


if __name__ == '__main__':
  cli.run(main)
