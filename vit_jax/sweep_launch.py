"""From a sweep to the files that run it on a cluster: what `vit_jax.sweep --launcher` does."""

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from vit_jax import cli
from vit_jax.commands import written
from vit_jax.cost import prices
from vit_jax.cost.slices import Slice
from vit_jax.errors import UserError
from vit_jax.launch import cluster as cluster_lib
from vit_jax.launch import errands, files, jobset, skypilot
from vit_jax.launch import place as place_lib
from vit_jax.launch.cluster import Cluster
from vit_jax.launch.place import Place

BEFORE = 'before'  # the subfolder of what is to be started before the runs; `kubectl apply -f FOLDER` leaves it out
_NEEDS_PREPARATION = ('tfds', 'folder', 'pairs')
# Minutes that are paid for and not trained in: until a slice's machines are there and the image or the packages are on
# them, and for each run until its first step. Assumed, not measured.
BOOT_MINUTES = {'jobset': 5.0, 'skypilot': 8.0}
START_MINUTES = 3.0


@dataclasses.dataclass(frozen=True)
class Request:
  """What was asked for.

  Attributes:
    sweep: FILE.py[:ARG].
    name: of the sweep.
    launcher: 'jobset' or 'skypilot'.
    target: the slices of each run.
    workdir: the bucket path of the run folders.
    out: the folder to write to.
    place: where the data are; None: nowhere.
    cluster: for 'jobset'.
    spot: whether to use spot machines.
    plan: how to check that runs fit: 'none', 'estimate' or 'compile'.
    price: dollars per chip-hour; None: the list price.
  """
  sweep: str
  name: str
  launcher: str
  target: Slice
  workdir: str
  out: str
  place: Place | None = None
  cluster: Cluster | None = None
  spot: bool = False
  plan: str = 'estimate'
  price: float | None = None


def check(request: Request) -> None:
  """Raises UserError for what is wrong before anything is planned."""
  if request.launcher == 'jobset':
    jobset.check(request.target, request.cluster)
  else:
    skypilot.check(request.target, request.place)
  place_lib.check_bucket(request.workdir, '--workdir', ('gs',))


def make(request: Request, display) -> tuple[Any, dict, set[str]]:
  """(the plan of the sweep, {task: its runs}, the data sources), after printing what it needs and costs.

  Raises:
    UserError: a run is invalid, does not fit, or finds no data on the hosts.
  """
  from vit_jax.sweeps import tasks
  plan, summary, sources = _rehearse(request)
  target = request.target
  several = target.hosts * target.count > 1
  to_run = tasks.make(plan, request.workdir, ['--distributed=auto'] if several else [])
  display.tasks(plan, to_run, target)
  _show_needs(request, summary, to_run, display)
  _refuse_what_does_not_fit(request, plan, summary)
  return plan, to_run, sources


def write(request: Request, to_run: Mapping, sources: set[str]) -> list[pathlib.Path]:
  """Writes a file per task to --out, and what comes before them to its subfolder; returns the paths of the latter."""
  place, spot = request.place, request.spot
  if request.launcher == 'jobset':
    render = lambda task: jobset.render(task, request.target, request.cluster, request.name)
  else:
    render = lambda task: skypilot.render(task, request.target, place, spot=spot)
  files.write(request.out, {task.label: render(task) for task in to_run})
  return files.write(f'{request.out}/{BEFORE}', _errands(request, to_run, sources))


def _errands(request, to_run, sources):
  """{name: tree} of what is to be started before the runs: the preparation of data, then one run tried in one pod."""
  place, last = request.place, [task.programs[-1] for task in to_run]
  writable = place is not None and place.kind not in ('image', 'here')
  prepared = sorted(s for s in sources if s.partition(':')[0] in _NEEDS_PREPARATION) if writable else []
  names = {source: f'{i}-{errands.preparation_name(source)}' for i, source in enumerate(prepared, 1)}
  first = f'{len(prepared) + 1}-{errands.first_name(request.name)}'
  devices, name = request.target.devices, request.name
  if request.launcher == 'jobset':
    out = {names[s]: errands.preparation(request.cluster, s, name) for s in prepared}
    return out | {first: errands.first(request.cluster, last[0], devices, name)}
  out = {names[s]: skypilot.preparation(s, place, errands.preparation_name(s)) for s in prepared}
  return out | {first: skypilot.first(last[0], devices, place, errands.first_name(name))}


def _rehearse(request):
  """(the plan on absent slices, what each run needs there, the data sources). The data need not be present either."""
  import jax
  jax.config.update('jax_platforms', 'cpu')  # this machine's accelerators are not used
  from vit_jax.rehearsal import compiler, total
  from vit_jax.rehearsal import run_plan as plan_lib
  from vit_jax.sweeps import sweep_plan
  target = request.target
  configs, names, notes = sweep_plan.read(request.sweep)
  moved = sweep_plan.elsewhere_data(configs, lambda config: _place(request, config))
  jobs = total.open_jobs(names, [config for _, config in configs.values()])
  whole = sweep_plan.elsewhere(moved, names, notes, [job.size for job in jobs], target.chips * target.chip.peak_flops)
  if request.plan == 'compile' and (reason := compiler.missing()):
    raise UserError(f'--plan=compile: {reason}')
  with cli.Progress() as progress:
    def make(job):
      limit, label = target.chip.hbm_bytes, f'compiling {names[jobs.index(job)]} for {target}'
      waiting = lambda seconds: progress(f'{label}, {seconds:.0f} s')
      each = functools.partial(plan_lib.compiled, waiting=waiting) if request.plan == 'compile' else plan_lib.estimated
      return plan_lib.first_that_fits(job, target, lambda choice: each(job, target, choice, limit))
    plans = zip(names, total.plan_each(jobs, make), strict=True)
    return (whole, total.Total(tuple(plans), whole.flops_alone, whole.flops, target),
            {config.data.source for _, config in configs.values()})


def _place(request, config):
  """The data.data_dir of a run on the hosts, None if it stays; raises UserError for what the hosts do not have."""
  place_lib.check_file('pretrained.path', config.pretrained.path, request.place)
  place_lib.check_file('distill.teacher', config.distill.teacher, request.place)
  return place_lib.data_dir(config.data.source, config.data.data_dir, request.place)


def _show_needs(request, summary, to_run, display):
  """Prints the chip-hours and the price of the sweep with what they assume, and the memory of its largest run."""
  chips, training = request.target.chips, summary.hours(summary.flops)
  boot, runs = BOOT_MINUTES[request.launcher], sum(len(task.programs) for task in to_run)
  starting = chips * (len(to_run) * boot + runs * START_MINUTES) / 60
  price, source = prices.of(request.target.generation, request.price)
  counted = f'{len(to_run)} file{"s" if len(to_run) > 1 else ""}'
  display.note(f'about {training + starting:,.1f} chip-hours: {training:,.1f} chip-hours at {summary.mfu:.0%} MFU to '
               f'train, and {starting:,.1f} to start (assumed: {boot:g} minutes of boot for each of {counted}, '
               f'{START_MINUTES:g} for each of {runs} runs to start and compile)')
  display.note(f'about ${(training + starting) * price:,.0f} at ${price:.2f} per chip-hour ({source}); '
               'restarts, storage and network are not counted. `vit_jax.plan` says whether a step allows that MFU')
  if request.plan != 'none':
    name, largest = max(summary.plans, key=lambda item: item[1].needs)
    how = 'compiled' if request.plan == 'compile' else 'estimated; --plan=compile uses the TPU compiler'
    display.note(f'at most {largest.needs / 1e9:.2f} of {largest.limit_bytes / 1e9:.2f} GB per chip, in {name} ({how})')


def _refuse_what_does_not_fit(request, plan, summary):
  """Raises UserError if a run needs more memory than a chip has; the message says by how much, and what would fit."""
  from vit_jax.rehearsal import plan_text
  if request.plan == 'none' or not (too_large := summary.too_large):
    return
  target = request.target
  name, worst = too_large[0]
  arguments = next(run.arguments for run in plan.runs if run.name == name)
  slices = [f'--num_slices={target.count}'] if target.count > 1 else []
  command = shlex.join(['python', '-m', 'vit_jax.plan', *arguments, f'--tpu={target.name}', *slices])
  others = f', and {len(too_large) - 1} more' if len(too_large) > 1 else ''
  raise UserError(f'{name}{others}: {plan_text.shortfall(worst)}. To find the nearest choice that fits, run\n'
                  f'  {command}\n--plan=none writes the files without this check')


def next_steps(request: Request, before: list[pathlib.Path], sources: set[str], law: str, display) -> None:
  """Prints what the files assume, and the commands that lead from them to a law."""
  workdir, name = request.workdir, request.name
  if request.launcher == 'jobset':
    assumed = cluster_lib.assumes(request.cluster, workdir, request.target.count > 1)
    commands = _kubectl(request, before)
  else:
    assumed, commands = skypilot.assumes(request.place, workdir), _sky(request, before)
  assumed += [f'that service account may read {source.partition(":")[2]}' for source in sorted(sources)
              if '://' in source]
  display.note('\nthese files assume that')
  for sentence in assumed:
    display.note(f'  - {sentence}')
  display.note('')
  commands += [('status', written('sweep', f'--status {workdir}')),
               ('stop a run', written('sweep', f'--stop=RUN --workdir={workdir}')),
               ('fetch logs', 'gcloud storage rsync --recursive --exclude=".*checkpoints/.*" '
                              f'{workdir} {shlex.quote(f"runs/{name}")}'),
               ('fit a law', law)]
  for what, command in commands:
    display.note(f'{what:<12}{command}')


def _kubectl(request, before):
  """A JobSet that has ended is not started by `apply`, so it is deleted first; what has finished ends at once."""
  space = f' -n {request.cluster.namespace}' if request.cluster.namespace else ''
  out = shlex.quote(request.out.rstrip('/') or '/')
  selected = f'{space} -l {jobset.selector(request.name)}'
  follow = f'kubectl logs --follow --pod-running-timeout=30m{space} job'
  tries = [('prepare' if errands.PREPARE in path.name else 'try first',
            f'kubectl apply -f {shlex.quote(str(path))} && {follow}/{path.stem.partition("-")[2]}')
           for path in before]
  return [*tries, ('start', f'kubectl apply -f {out}'), ('watch', f'kubectl get jobsets{selected}'),
          ('logs', f'kubectl logs{selected} --prefix --tail=20'),
          ('start again', f'kubectl delete -f {out} --ignore-not-found && kubectl apply -f {out}   (after a failure, '
                          'with another image or recipe)')]


def _sky(request, before):
  out = shlex.quote(request.out.rstrip('/') or '/')
  tries = [('prepare' if errands.PREPARE in path.name else 'try first',
            f'sky jobs launch --yes {shlex.quote(str(path))}') for path in before]
  start = f'for task in {out}/*.yaml; do sky jobs launch --yes --detach-run "$task"; done'
  return [*tries, ('start', start), ('watch', 'sky jobs queue'), ('start again', 'the same commands: what has finished '
                                                                  'ends at once')]
