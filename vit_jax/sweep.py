"""Runs a sweep: python -m vit_jax.sweep --sweep=FILE.py[:ARG] [--workdir=DIR] [--jobs=N] [--dry_run]

or writes files that run it on a cluster: --launcher=jobset|skypilot --tpu=v5e-16 --workdir=gs://BUCKET/DIR --out=DIR
(docs/clusters.md), or looks at one that runs, here or there: --status DIR, --stop=RUN --workdir=DIR

FILE.py defines get_sweep(), which returns a vit_jax.sweeps.Sweep. The plan is printed before anything starts. The same
command resumes a sweep that was stopped; runs that another sweep has finished in the same folder are not repeated.
Exit codes: 0: done; 1: an error or a failed run; 130 after Ctrl-C and 42 after SIGTERM: everything can be resumed.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import shlex
import signal

from absl import flags

from vit_jax import cli, commands, durable
from vit_jax.errors import UserError

_SWEEP = flags.DEFINE_string('sweep', None, 'A file with get_sweep(): FILE.py, or FILE.py:ARG.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'The folder that holds the run folders; default: runs/NAME.')
_JOBS = flags.DEFINE_integer('jobs', None, 'Processes at a time; default: one per core for small models on a CPU, '
                             'else one.', 1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Show the plan and start nothing.')
_STATUS = flags.DEFINE_bool('status', False, 'Show the status of the runs in --workdir and start nothing.')
_STOP = flags.DEFINE_string('stop', None, 'Ask this run of the sweep in --workdir to save and end.')
_UNSTOP = flags.DEFINE_string('unstop', None, 'Take the request of --stop back, so that the run can be started again.')
_LAUNCHER = flags.DEFINE_enum('launcher', None, ['jobset', 'skypilot'], 'Write files that start the runs on TPUs: on '
                              'Kubernetes (GKE), or on Cloud TPU VMs.')
_TPU = flags.DEFINE_string('tpu', None, 'With --launcher: the slice for each run, such as v5e-16.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'With --launcher: where the data are, as the hosts reach them: '
                                'gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, pvc:CLAIM/FOLDER, host:/FOLDER, or '
                                'image:/FOLDER.')
_SPOT = flags.DEFINE_bool('spot', None, 'With --launcher: use spot machines, which are cheap and may be '
                         'pre-empted.')
_OUT = flags.DEFINE_string('out', None, 'With --launcher: the folder to write the files to.')
_PLAN = flags.DEFINE_enum('plan', 'estimate', ['none', 'estimate', 'compile'], 'With --launcher: how to check, '
                          'before files are written, that the runs fit the slice: not at all, by an estimate from '
                          'shapes (seconds), or by the TPU compiler (a minute per model size).')
_PREFLIGHT = flags.DEFINE_bool('preflight', False, 'With --launcher: first do here what the first host of a run does '
                               'until it trains, in a container where Docker runs.')
_PRICE = flags.DEFINE_float('price', None, 'With --launcher or --status: dollars per chip-hour; default: the list '
                            'price.', 0.0)
_NUM_SLICES = flags.DEFINE_integer('num_slices', None, 'With --launcher=jobset: slices per run; default: 1.', 1)
_CHIPS_PER_HOST = flags.DEFINE_integer('chips_per_host', None, 'With --launcher=jobset: 4 or 8, for v5e-8 and v6e-8, '
                                       'which are sold as one machine of 8 chips (default) or two of 4.', 1)
_IMAGE = flags.DEFINE_string('image', None, 'With --launcher=jobset: the container image.')
_QUEUE = flags.DEFINE_string('queue', None, 'With --launcher=jobset: the Kueue queue in which the runs wait.')
_NAMESPACE = flags.DEFINE_string('namespace', None, 'With --launcher=jobset: the Kubernetes namespace.')
_SERVICE_ACCOUNT = flags.DEFINE_string('service_account', None, 'With --launcher=jobset: the Kubernetes service '
                                       'account whose rights the pods have, such as to buckets.')
_PULL_SECRET = flags.DEFINE_string('pull_secret', None, 'With --launcher=jobset: the Secret that pulls a private '
                                   'image.')
_COORDINATOR_PORT = flags.DEFINE_integer('coordinator_port', None, 'With --launcher=jobset: the port at which the '
                                         'hosts of a run meet; default: that of JAX.', 1, 65_535)
_PRIVILEGED = flags.DEFINE_bool('privileged', True, 'With --launcher=jobset: run containers as root with all rights, '
                                "as Google's examples do.")
_FOR_JOBSETS = (_IMAGE, _QUEUE, _NAMESPACE, _SERVICE_ACCOUNT, _PULL_SECRET, _COORDINATOR_PORT, _PRIVILEGED,
                _CHIPS_PER_HOST)


def main(rest: list[str]) -> int:
  looks = _STATUS.value or _STOP.value or _UNSTOP.value
  workdir = _one_workdir(rest, looks)
  if _SWEEP.value is None and not (looks and workdir):
    raise UserError('--sweep is missing, as in --sweep=experiments/fashion_mnist_law/sweep.py')
  if _LAUNCHER.value:
    return _launch()
  _refuse([_TPU, _NUM_SLICES, _SPOT, _OUT, _PLAN, _DATA_DIR, _PREFLIGHT, *_FOR_JOBSETS],
          'only with --launcher=jobset or --launcher=skypilot')
  workdir = workdir or f'runs/{_name()}'
  return _look(workdir) if looks else _run_here(workdir)


def _one_workdir(rest, looks):
  """--workdir, or the argument after --status, as in --status gs://BUCKET/NAME."""
  given = [*rest, *([_WORKDIR.value] if _WORKDIR.value else [])]
  if len(given) > 1 or rest and not looks:
    raise UserError(f'{rest[-1]!r}: unexpected argument; flags start with --')
  return given[0] if given else None


def _look(workdir):
  """--status, --stop and --unstop: reads the folder of a sweep, here or in a bucket, and starts nothing."""
  from vit_jax.sweeps import standing
  from vit_jax.sweeps.display import Display
  display, found = Display(), standing.read(workdir)
  if name := _STOP.value or _UNSTOP.value:
    display.note(standing.ask(found, name, stop=bool(_STOP.value)))
    return 0
  display.status(found.jobs, _PRICE.value)
  for fault in found.faults:
    display.note(f'left out    {fault}')
  return 0


def _run_here(workdir):
  """Runs the sweep on this machine."""
  from vit_jax.survival import workdir as workdir_lib
  from vit_jax.sweeps import board_page, folders, jobs
  from vit_jax.sweeps.board_page import Board
  from vit_jax.sweeps.display import Display
  display = Display()
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
  board = Board(_name(), everything, os.path.join(workdir, board_page.NAME))
  code = _run(together, processes, display, board) if left else 0
  _summary(plan, everything, workdir, display)
  _page(board, display)
  return 1 if display.left_out(everything) and not code else code


def _launch():
  """Writes the files that run the sweep on a cluster, and prints the commands that start it."""
  from vit_jax import sweep_launch
  from vit_jax.sweeps import folders
  from vit_jax.sweeps.display import Display
  _refuse([_JOBS, _STATUS, _STOP, _UNSTOP], f'not with --launcher={_LAUNCHER.value}')
  request, display = _request(sweep_launch), Display()
  sweep_launch.check(request)
  plan, to_run, sources = sweep_launch.make(request, display)
  if _PREFLIGHT.value:
    from vit_jax import sweep_preflight
    sweep_preflight.run(request, to_run, display)
  if _DRY_RUN.value:
    return 0
  before = sweep_launch.write(request, to_run, sources)
  if fault := folders.offer_plan(request.workdir, _name(), plan):
    display.note(f'note: {request.workdir} cannot be written from here, so --status will list the runs as they begin '
                 f'({fault})')
  sweep_launch.next_steps(request, before, sources, _law(plan, f'runs/{_name()}'), display)
  return 0


def _request(sweep_launch):
  """The flags of --launcher as a `sweep_launch.Request`."""
  from vit_jax.cost import slices
  from vit_jax.launch import place as place_lib
  from vit_jax.launch.cluster import Cluster
  for flag, example in ((_TPU, 'v5e-16'), (_OUT, 'manifests/')):
    if not flag.value:
      raise UserError(f'--{flag.name} is missing, as in --{flag.name}={example}')
  count = 1 if _NUM_SLICES.value is None else _NUM_SLICES.value
  target, cluster = slices.find(_TPU.value, count, _CHIPS_PER_HOST.value), None
  place = place_lib.parse(_DATA_DIR.value) if _DATA_DIR.value else None
  if _LAUNCHER.value == 'jobset':
    if place and place.kind == 'here':
      place = dataclasses.replace(place, kind='host')
    cluster = Cluster(_IMAGE.value, _NAMESPACE.value, _SERVICE_ACCOUNT.value, _PULL_SECRET.value, _QUEUE.value,
                      bool(_SPOT.value), place, _COORDINATOR_PORT.value, _PRIVILEGED.value)
  else:
    _refuse(_FOR_JOBSETS, 'not with --launcher=skypilot, which copies this repository to machines of its own')
  return sweep_launch.Request(_SWEEP.value, _name(), _LAUNCHER.value, target, _WORKDIR.value or '', _OUT.value, place,
                              cluster, bool(_SPOT.value), _PLAN.value, _PRICE.value)


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


def _run(left, processes, display, board):
  from vit_jax.sweeps.runner import Runner
  display.note(f'\nwatch       {board.path}: this page reloads itself while runs are in progress')
  display.start(sum(map(len, left)))
  try:
    return Runner(left, processes, display, watch=board.poll).run()
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


def _page(board, display):
  """Writes the page of the sweep a last time."""
  try:
    board.write()
    display.note(f'look at it  {board.path}')
  except (OSError, durable.Unreachable) as error:  # a full disk: the runs are what counts
    display.note(f'note: {board.path} was not written: {error}')


def _law(plan, workdir):
  """The command that fits a law to the runs of a sweep."""
  sizes, lengths = ({getattr(run, name) for run in plan.runs} for name in ('params', 'examples'))
  form = '--form=chinchilla' if len(sizes) > 1 and len(lengths) > 1 else f'--x={_x(plan, sizes, lengths)}'
  return commands.written('law', shlex.join([workdir, form, f'--out={workdir}/law']))


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
  cli.run(main, positional=True)
