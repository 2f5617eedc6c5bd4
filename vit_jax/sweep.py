"""Runs many configs: python -m vit_jax.sweep --sweep=FILE.py[:ARG] [--workdir=DIR] [--jobs=N] [--dry_run | --status]

or writes what a cluster needs to run them: --launcher=jobset|skypilot --tpu=v5e-16 --workdir=gs://BUCKET/DIR --out=DIR

FILE has a get_sweep() that gives a vit_jax.sweeps.Sweep. The plan is shown before anything starts; the same command
goes on where it was stopped, and runs that another sweep has finished in the same folder are not run again. Exit codes:
0 done, 1 an error, or a run that failed; 130 after Ctrl-C and 42 after SIGTERM, with everything resumable.
"""

import concurrent.futures
import multiprocessing
import os
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
_LAUNCHER = flags.DEFINE_enum('launcher', None, ['jobset', 'skypilot'], 'Write files that start the runs on TPUs: on '
                              'Kubernetes (GKE), or on Cloud TPU VMs.')
_TPU = flags.DEFINE_string('tpu', None, 'With --launcher: the slice that each run gets, such as v5e-16.')
_NUM_SLICES = flags.DEFINE_integer('num_slices', None, 'With --launcher=jobset: slices that each run gets; default 1.',
                                   1)
_SPOT = flags.DEFINE_bool('spot', None, 'With --launcher: machines that are cheap and may be taken away.')
_IMAGE = flags.DEFINE_string('image', None, 'With --launcher=jobset: the container image.')
_QUEUE = flags.DEFINE_string('queue', None, 'With --launcher=jobset: the Kueue queue in which the runs wait.')
_OUT = flags.DEFINE_string('out', None, 'With --launcher: the folder of the files.')
_PLAN = flags.DEFINE_enum('plan', 'estimate', ['none', 'estimate', 'compile'], 'With --launcher: how to find out '
                          'whether the runs fit the slice, before files are written: not at all, from shapes '
                          '(seconds), or by the TPU compiler (a minute for each model size).')


def main() -> int:
  if _SWEEP.value is None and not (_STATUS.value and _WORKDIR.value):
    raise UserError('--sweep is missing, as in --sweep=experiments/fashion_mnist_law/sweep.py')
  if _LAUNCHER.value:
    return _launch()
  _refuse([_TPU, _NUM_SLICES, _SPOT, _IMAGE, _QUEUE, _OUT, _PLAN], 'only with --launcher=jobset or --launcher=skypilot')
  from vit_jax.survival import workdir as workdir_lib
  from vit_jax.sweeps import folders, jobs
  from vit_jax.sweeps.display import Display
  workdir, display = _WORKDIR.value or f'runs/{_name()}', Display()
  if _STATUS.value:
    display.status([job for plan in folders.read_plans(workdir) for job in jobs.make(plan, workdir)])
    return 0
  if '://' not in workdir:
    workdir_lib.check(workdir)
  plan = _plan(_SWEEP.value)
  everything = jobs.make(plan, workdir)
  left = jobs.to_do(everything)
  processes = _JOBS.value or jobs.default_processes(plan)
  seconds = jobs.seconds(everything, plan, workdir, processes)
  display.plan(plan, everything, seconds)
  together = jobs.packed(jobs.by_priority(left, seconds), plan, processes)
  display.totals(plan, together, jobs.makespan(left, seconds, processes), processes)
  if _DRY_RUN.value:
    return 0
  if '://' in workdir:
    raise UserError(f'--workdir={workdir}: runs that are started on this machine keep their logs and locks in a local '
                    'folder')
  folders.write_plan(workdir, _name(), plan)
  _share_programs(workdir)
  code = _run(together, processes, display) if left else 0
  _summary(plan, everything, workdir, display)
  return code


def _launch():
  """Writes what a cluster needs to carry out the sweep, and says what starts it."""
  from vit_jax.cost import slices
  from vit_jax.launch import files, jobset, skypilot
  from vit_jax.sweeps import tasks
  from vit_jax.sweeps.display import Display
  _refuse([_JOBS, _STATUS], f'not with --launcher={_LAUNCHER.value}')
  for flag, example in ((_TPU, 'v5e-16'), (_OUT, 'manifests/')):
    if not flag.value:
      raise UserError(f'--{flag.name} is missing, as in --{flag.name}={example}')
  target, spot = slices.find(_TPU.value, 1 if _NUM_SLICES.value is None else _NUM_SLICES.value), bool(_SPOT.value)
  if _LAUNCHER.value == 'jobset':
    jobset.check(target, _IMAGE.value, _QUEUE.value)
    render = lambda task: jobset.render(task, target, _IMAGE.value, spot=spot, queue=_QUEUE.value, sweep=_name())
  else:
    _refuse([_IMAGE, _QUEUE], 'not with --launcher=skypilot, which copies this repository')
    skypilot.check(target)
    render = lambda task: skypilot.render(task, target, spot=spot)
  tasks.check_workdir(_WORKDIR.value)
  plan, summary = _rehearse(target)
  several = target.hosts * target.count > 1
  to_run = tasks.make(plan, _WORKDIR.value, ['--distributed=auto'] if several else [])
  display = Display()
  display.tasks(plan, to_run, target)
  _show_needs(summary, display)
  _refuse_what_does_not_fit(plan, summary, target)
  if not _DRY_RUN.value:
    files.write(_OUT.value, {task.label: render(task) for task in to_run})
    _next_steps(plan, display)
  return 0


def _rehearse(target):
  """The plan of the sweep on slices that are not here, and what each run needs there; data need not be here either."""
  import jax
  jax.config.update('jax_platforms', 'cpu')  # this machine's devices are not what is asked about
  from vit_jax.rehearsal import compiler, total
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.rehearsal import run_plan as plan_lib
  from vit_jax.sweeps import sweep_plan
  configs, names, notes = sweep_plan.read(_SWEEP.value)
  jobs = total.open_jobs(names, [config for _, config in configs.values()])
  whole = sweep_plan.elsewhere(configs, names, notes, [job.size for job in jobs], target.chips * target.chip.peak_flops)
  if _PLAN.value == 'compile' and (reason := compiler.missing()):
    raise UserError(f'--plan=compile: {reason}')
  with cli.Progress() as progress:
    def make(job):
      choice, limit = job_lib.choice_on(job, target), target.chip.hbm_bytes
      if _PLAN.value != 'compile':
        return plan_lib.estimated(job, target, choice, limit)
      said = f'compiling {names[jobs.index(job)]} for {target}'
      return plan_lib.compiled(job, target, choice, limit, waiting=lambda seconds: progress(f'{said}, {seconds:.0f} s'))
    plans = zip(names, total.plan_each(jobs, make), strict=True)
    return whole, total.Total(tuple(plans), whole.flops_alone, whole.flops, target)


def _show_needs(summary, display):
  """The largest run's memory, and the sweep's chip-hours."""
  display.note(f'about {summary.hours(summary.flops):,.1f} chip-hours at {summary.mfu:.0%} MFU')
  if _PLAN.value != 'none':
    name, largest = max(summary.plans, key=lambda item: item[1].needs)
    how = 'compiled' if _PLAN.value == 'compile' else 'estimated; --plan=compile asks the TPU compiler'
    display.note(f'at most {largest.needs / 1e9:.2f} of {largest.limit_bytes / 1e9:.2f} GB per chip, in {name} ({how})')


def _refuse_what_does_not_fit(plan, summary, target):
  """Raises UserError where a run needs more than a chip has; the message says by how much, and what would fit."""
  from vit_jax.rehearsal import plan_text
  if _PLAN.value == 'none' or not (too_large := summary.too_large):
    return
  name, worst = too_large[0]
  arguments = next(run.arguments for run in plan.runs if run.name == name)
  slices = [f'--num_slices={target.count}'] if target.count > 1 else []
  command = shlex.join(['python', '-m', 'vit_jax.plan', *arguments, f'--tpu={target.name}', *slices])
  others = f', and {len(too_large) - 1} more' if len(too_large) > 1 else ''
  raise UserError(f'{name}{others}: {plan_text.shortfall(worst)}. The nearest that fits tells\n  {command}\n'
                  'and --plan=none writes the files all the same')


def _next_steps(plan, display):
  """The commands from the written files to a law."""
  out = shlex.quote(_OUT.value.rstrip('/') or '/')
  if _LAUNCHER.value == 'jobset':
    from vit_jax.launch.jobset import selector
    display.note(f'start       kubectl apply -f {out}')
    display.note(f'watch       kubectl get jobsets -l {selector(_name())}')
  else:
    display.note(f'start       for task in {out}/*.yaml; do sky jobs launch --yes --detach-run "$task"; done')
    display.note('watch       sky jobs queue')
  logs = shlex.quote(f'runs/{_name()}')
  display.note(f'fetch logs  gcloud storage rsync --recursive --exclude=".*checkpoints/.*" {_WORKDIR.value} {logs}')
  display.note(f'fit a law   {_law(plan, f"runs/{_name()}")}')


def _refuse(given, why):
  """Raises UserError where one of these flags has a value."""
  for flag in given:
    if flags.FLAGS[flag.name].present:
      raise UserError(f'--{flag.name}: {why}')


def _plan(sweep):
  """The plan, made in a process of its own: it opens the devices, which the runs must find free."""
  from vit_jax.sweeps import sweep_plan as plan_lib
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context, _start_planning) as pool:
    return pool.submit(plan_lib.make, sweep).result()


def _start_planning():
  """First thing in the planning process: Ctrl-C is for its parent, and JAX is not to look for an absent TPU."""
  from vit_jax import host
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  host.hush_absent_tpu()


def _share_programs(workdir):
  """Runs that differ in seed, learning rate or weight decay alone are one program: the first compiles it for all."""
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(workdir, 'compiled').absolute()))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')


def _run(left, processes, display):
  from vit_jax.sweeps.runner import Runner
  display.note('')
  display.start(sum(map(len, left)))
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
    display.note(f'fit a law   {_law(plan, workdir)}')


def _law(plan, workdir):
  """The command that fits a law to a sweep's runs."""
  sizes, lengths = ({getattr(run, name) for run in plan.runs} for name in ('params', 'examples'))
  form = '--form=chinchilla' if len(sizes) > 1 and len(lengths) > 1 else f'--x={_x(sizes)}'
  return shlex.join(['python', '-m', 'vit_jax.law', workdir, form, f'--out={workdir}/law'])


def _x(sizes):
  return 'params' if len(sizes) > 1 else 'examples'


def _name():
  """experiments/fashion_mnist_law/sweep.py -> fashion_mnist_law; other files by their own name."""
  path = pathlib.Path(_SWEEP.value.partition(':')[0])
  return path.absolute().parent.name if path.stem == 'sweep' else path.stem


if __name__ == '__main__':
  cli.run(main)
