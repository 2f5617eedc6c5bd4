"""Runs a sweep: python -m vit_jax.sweep --sweep=FILE.py[:ARG] [--workdir=DIR] [--jobs=N] [--dry_run | --status]

or writes files that run it on a cluster: --launcher=jobset|skypilot --tpu=v5e-16 --workdir=gs://BUCKET/DIR --out=DIR

FILE.py defines get_sweep(), which returns a vit_jax.sweeps.Sweep. The plan is printed before anything starts. The same
command resumes a sweep that was stopped; runs that another sweep has finished in the same folder are not repeated.
Exit codes: 0: done; 1: an error or a failed run; 130 after Ctrl-C and 42 after SIGTERM: everything can be resumed.
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
_WORKDIR = flags.DEFINE_string('workdir', None, 'The folder that holds the run folders; default: runs/NAME.')
_JOBS = flags.DEFINE_integer('jobs', None, 'Processes at a time; default: one per core for small models on a CPU, '
                             'else one.', 1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Show the plan and start nothing.')
_STATUS = flags.DEFINE_bool('status', False, 'Show the status of the runs in --workdir and start nothing.')
_LAUNCHER = flags.DEFINE_enum('launcher', None, ['jobset', 'skypilot'], 'Write files that start the runs on TPUs: on '
                              'Kubernetes (GKE), or on Cloud TPU VMs.')
_TPU = flags.DEFINE_string('tpu', None, 'With --launcher: the slice for each run, such as v5e-16.')
_NUM_SLICES = flags.DEFINE_integer('num_slices', None, 'With --launcher=jobset: slices per run; default: 1.', 1)
_SPOT = flags.DEFINE_bool('spot', None, 'With --launcher: use spot machines, which are cheap and may be '
                         'pre-empted.')
_IMAGE = flags.DEFINE_string('image', None, 'With --launcher=jobset: the container image.')
_QUEUE = flags.DEFINE_string('queue', None, 'With --launcher=jobset: the Kueue queue in which the runs wait.')
_OUT = flags.DEFINE_string('out', None, 'With --launcher: the folder to write the files to.')
_PLAN = flags.DEFINE_enum('plan', 'estimate', ['none', 'estimate', 'compile'], 'With --launcher: how to check, '
                          'before files are written, that the runs fit the slice: not at all, by an estimate from '
                          'shapes (seconds), or by the TPU compiler (a minute per model size).')


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
    plans, faults = folders.read_plans(workdir)
    display.status([job for plan in plans for job in jobs.make(plan, workdir)])
    for fault in faults:
      display.note(f'left out    {fault}')
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
  damaged = any(folders.damage(job.folder) for job in everything)
  display.totals(plan, everything, together, jobs.makespan(left, seconds, processes), processes, damaged)
  if _DRY_RUN.value:
    display.left_out(everything)
    return 0
  if '://' in workdir:
    raise UserError(f'--workdir={workdir}: runs on this machine need a local folder for their logs and locks')
  folders.write_plan(workdir, _name(), plan)
  _share_programs(workdir)
  code = _run(together, processes, display) if left else 0
  _summary(plan, everything, workdir, display)
  return 1 if display.left_out(everything) and not code else code


def _launch():
  """Writes the files that run the sweep on a cluster, and prints the commands that start it."""
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
  """The plan of the sweep on absent slices, and what each run needs there. The data need not be present either."""
  import jax
  jax.config.update('jax_platforms', 'cpu')  # this machine's accelerators are not used
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
      label = f'compiling {names[jobs.index(job)]} for {target}'
      waiting = lambda seconds: progress(f'{label}, {seconds:.0f} s')
      return plan_lib.compiled(job, target, choice, limit, waiting=waiting)
    plans = zip(names, total.plan_each(jobs, make), strict=True)
    return whole, total.Total(tuple(plans), whole.flops_alone, whole.flops, target)


def _show_needs(summary, display):
  """Prints the chip-hours of the sweep and the memory of its largest run."""
  display.note(f'about {summary.hours(summary.flops):,.1f} chip-hours at {summary.mfu:.0%} MFU')
  if _PLAN.value != 'none':
    name, largest = max(summary.plans, key=lambda item: item[1].needs)
    how = 'compiled' if _PLAN.value == 'compile' else 'estimated; --plan=compile uses the TPU compiler'
    display.note(f'at most {largest.needs / 1e9:.2f} of {largest.limit_bytes / 1e9:.2f} GB per chip, in {name} ({how})')


def _refuse_what_does_not_fit(plan, summary, target):
  """Raises UserError if a run needs more memory than a chip has; the message says by how much, and what would fit."""
  from vit_jax.rehearsal import plan_text
  if _PLAN.value == 'none' or not (too_large := summary.too_large):
    return
  name, worst = too_large[0]
  arguments = next(run.arguments for run in plan.runs if run.name == name)
  slices = [f'--num_slices={target.count}'] if target.count > 1 else []
  command = shlex.join(['python', '-m', 'vit_jax.plan', *arguments, f'--tpu={target.name}', *slices])
  others = f', and {len(too_large) - 1} more' if len(too_large) > 1 else ''
  raise UserError(f'{name}{others}: {plan_text.shortfall(worst)}. To find the nearest choice that fits, run\n'
                  f'  {command}\n--plan=none writes the files without this check')


def _next_steps(plan, display):
  """Prints the commands that lead from the written files to a law."""
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
  """Raises UserError if one of these flags is given."""
  for flag in given:
    if flags.FLAGS[flag.name].present:
      raise UserError(f'--{flag.name}: {why}')


def _plan(sweep):
  """The plan, made in a separate process: it opens the devices, which must be free for the runs."""
  from vit_jax.sweeps import sweep_plan as plan_lib
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context, _start_planning) as pool:
    return pool.submit(plan_lib.make, sweep).result()


def _start_planning():
  """Initialises the planning process: Ctrl-C is left to its parent, and JAX does not look for an absent TPU."""
  from vit_jax import host
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  host.hush_absent_tpu()


def _share_programs(workdir):
  """Shares a compilation cache: runs that differ only in seed, learning rate or weight decay use one program."""
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
  """Prints what is finished, what sharing saved, and the next command."""
  from vit_jax.sweeps.display import saving
  runs = [job for job in everything if not job.saves]
  done = sum(job.finished() for job in runs)
  display.note(f'\n{done} of {len(runs)} runs finished{saving(plan) if done == len(runs) else ""}')
  if done < len(runs):
    display.note('resume      the same command; --status shows the status of each run')
  if done:
    display.note(f'fit a law   {_law(plan, workdir)}')


def _law(plan, workdir):
  """The command that fits a law to the runs of a sweep."""
  sizes, lengths = ({getattr(run, name) for run in plan.runs} for name in ('params', 'examples'))
  form = '--form=chinchilla' if len(sizes) > 1 and len(lengths) > 1 else f'--x={_x(plan, sizes, lengths)}'
  return shlex.join(['python', '-m', 'vit_jax.law', workdir, form, f'--out={workdir}/law'])


def _x(plan, sizes, lengths):
  """The one input that differs between the runs."""
  subsets = {word for run in plan.runs for word in run.arguments if word.startswith('--config.data.unique_examples=')}
  if len(sizes) == len(lengths) == 1 and len(subsets) > 1:
    return 'unique_examples'
  return 'params' if len(sizes) > 1 else 'examples'


def _name():
  """The name of the sweep: experiments/fashion_mnist_law/sweep.py -> fashion_mnist_law; other files: their own name."""
  path = pathlib.Path(_SWEEP.value.partition(':')[0])
  return path.absolute().parent.name if path.stem == 'sweep' else path.stem


if __name__ == '__main__':
  cli.run(main)
