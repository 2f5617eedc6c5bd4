"""Trains one config: python -m vit_jax.main --config=configs/quickstart.py [--config.KEY=VALUE] [--workdir=DIR]

The same command on the same folder resumes a run that was stopped. On many hosts, start it on each of them with
--distributed. Once it is trained, the same command with --evaluate scores it on a --split: accuracy, loss, calibration,
each class, the confusion matrix; printed, and written to WORKDIR/evaluation. --evaluate=RUN scores any run on its own
data, or on that of --config; with it also a bundle or an exported file. --report writes a page about the run,
WORKDIR/report.html, once it has finished; --report=RUN that of any finished run. --print_config shows every key of
the config, and --list_changes which of them the command changes; both train nothing. Exit codes:

  0    done
  1    an error that the message explains: the next try would meet it again
  42   stopped by SIGTERM or Ctrl-C, and saved: the same command resumes the run
  130  stopped at once by a second Ctrl-C; 143 by a SIGTERM before there was anything to save
  134  another process of the run was lost: the same command resumes the run
"""

import os
import shlex
import sys

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError
from vit_jax.printable import say

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string('workdir', None, 'The run folder, local or a bucket path; default runs/NAME-HASH.')
_TRUNK = flags.DEFINE_string('trunk', None, 'Start from this folder\'s checkpoint where the cooldown begins.')
_BRANCH_STEPS = flags.DEFINE_list('branch_steps', [], 'Train the trunk of wsd or rsqrt runs into --workdir, without a '
                                  'cooldown, and keep the checkpoints of these steps: where branches begin.')
_DISTRIBUTED = flags.DEFINE_string('distributed', 'none', 'The processes of this run: none but this one; auto (Cloud '
                                   'TPU, GKE, Slurm, Open MPI as JAX finds them); or HOST:PORT of process 0.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes, with --distributed=HOST:PORT.',
                                      lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which one this is, from 0, with --distributed=HOST:PORT.',
                                   lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer('heartbeat_s', 40, 'Seconds of silence after which a process is taken for dead, and '
                                  'the others end (exit code 134).', lower_bound=5, upper_bound=86_400)
_EVALUATE = cli.define_optional('evaluate', 'Score instead of training: --evaluate, what --config trained; '
                                '--evaluate=RUN, the model in that folder, on the data of --config or else its own.')
_REPORT = cli.define_optional('report', 'Write WORKDIR/report.html after training; --report=RUN: of that finished run, '
                              'instead of training.')
_PRINT_CONFIG = cli.define_optional('print_config', 'Print the config with what each key means, and train nothing: '
                                    '--print_config or =tree as a tree, =recipe as a recipe file.')
_LIST_CHANGES = cli.define_optional('list_changes', 'Print the keys in which this command differs from its recipe, and '
                                    'train nothing; --list_changes=RUN: those in which that run differs from --config.')
_SPLIT = flags.DEFINE_enum('split', 'test', ['test', 'val', 'train'], 'What --evaluate and --report score.')
_CLASSES = flags.DEFINE_string('classes', None, 'For --evaluate of a model whose classes have other names than those '
                               'of the data: a file with a name in each line, in the order of the model; or "order", '
                               'if they are those of the data in their order.')
_OUT = flags.DEFINE_string('out', None, 'Where --evaluate writes; default: RUN/evaluation.')
_PREFLIGHT = cli.define_optional('preflight', 'Do what a run does before it trains, and say what was found: the '
                                 'recipe, the data and their index, and whether --workdir can be written and read. '
                                 '--preflight=without_data: all but the data.')
_PROFILE = flags.DEFINE_bool('profile', False, 'Write a trace of a few steps to WORKDIR/profile, for XProf.')


def main() -> int:
  _check_flags()
  if _EVALUATE.value is not None or _REPORT.value:
    return _inspect()
  if _CONFIG.value is None:
    raise UserError('--config is missing, as in --config=configs/quickstart.py')
  if _PRINT_CONFIG.value is not None or _LIST_CHANGES.value is not None:
    return _show_config()
  if _REPORT.value is not None and _DISTRIBUTED.value != 'none':
    raise UserError('--report is made by one process: leave it out here, and give --report=WORKDIR after the run')
  # After the flags: a misspelt one is answered before JAX is imported.
  from vit_jax import goodput
  clock = goodput.Clock()  # before the imports, which every start pays for
  from vit_jax import checkpoint, exits, host
  from vit_jax.parallel import processes
  from vit_jax.survival import full_disk, stop, stop_file
  from vit_jax.training import config as run_config
  from vit_jax.training import frozen, preflight, start
  from vit_jax.training.display import Display

  host.keep_freed_memory()
  host.hush_absent_tpu()
  checkpoint.hush_late_callbacks()
  config = run_config.cast(_CONFIG.value)
  host.use_deterministic_ops(config.system.deterministic)
  processes.start(_DISTRIBUTED.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _HEARTBEAT.value)
  with processes.leaving_at_once():
    display = Display()
    if _PREFLIGHT.value is not None:
      checked = start.check(config, cli.overridden(), _WORKDIR.value, display.note)
      return preflight.look(checked, _WORKDIR.value, cli.recipe_name(), _PREFLIGHT.value)
    run = start.prepare(config, cli.overridden(), _WORKDIR.value, display.note, _steps(_BRANCH_STEPS.value))
    workdir = _WORKDIR.value or f'runs/{cli.recipe_name()}-{run.config_hash}'
    if _REPORT.value is not None and not (run.objective.predicts_classes or 'text' in run.entries):
      raise UserError(f'--report: the page of a run is about classes or texts, of which objective={config.objective} '
                      'tells nothing; leave it out')
    if frozen.wanted(run):
      if _REPORT.value is not None:
        raise UserError('--report: this run stops at frozen features, of which there is no page; leave it out, or '
                        'train all of the model with --config.pretrained.probe=never')
      display.header(run, cli.recipe_name(), workdir, frozen.estimate_seconds(run))
      display.probed(frozen.run_probe(run, workdir, display.note), _without_probe())
      return 0
    try:
      results = start.to_results(run, cli.recipe_name(), workdir, display, _PROFILE.value, _TRUNK.value, clock)
    except stop.Stopped:
      display.stopped(workdir)
      stop_file.refuse(workdir)  # it would stop again: final
      return exits.PREEMPTED
    except full_disk.DiskFull as error:
      # At an orderly exit libraries try once more to write, and print how that fails.
      say(f'error: {error}', sys.stderr)
      os._exit(1)
    display.summary(results, run.objective, workdir, _bundle(run, workdir))
  if _REPORT.value is not None:
    _score(workdir)
  return 0


def _show_config() -> int:
  """Prints the config of the run, or what it changes of its recipe. Nothing is trained."""
  from vit_jax import printed_config, records
  from vit_jax import recipe as recipe_lib
  from vit_jax.training import config as run_config
  from vit_jax.training import start
  if _CONFIG.value is None:
    raise UserError('--config is missing, as in --config=quickstart')
  config = run_config.cast(_CONFIG.value)
  run_config.check(config)
  config = start.fitted(config, cli.overridden(), lambda text: say(text, sys.stderr))
  if (form := _PRINT_CONFIG.value) is not None:
    if form not in ('', 'tree', 'recipe'):
      raise UserError(f'--print_config={form}: must be tree or recipe')
    title = f'As of {cli.recipe_name()}: what is set, and as comments all that can be.'
    say(printed_config.recipe(config, title) if form == 'recipe' else printed_config.tree(config))
  if _LIST_CHANGES.value is not None:
    recipe = run_config.cast(recipe_lib.load_recipe(cli.recipe_file()))
    if place := _LIST_CHANGES.value:
      if (record := records.read_run(place)) is None:
        raise UserError(f'--list_changes={place}: no run there')
      recipe, config = config, run_config.cast(record['config'])
    say('\n'.join(printed_config.changes(config, recipe)) or 'nothing is changed')
  return 0


def _check_flags() -> None:
  """Raises UserError for flags that would be without effect."""
  if _OUT.value is not None and _EVALUATE.value is None:
    raise UserError(f'--out={_OUT.value}: is where --evaluate writes its scores; leave it out')
  if _CLASSES.value is not None and _EVALUATE.value is None and not _REPORT.value:
    raise UserError(f'--classes={_CLASSES.value}: is for --evaluate or --report=RUN; leave it out')


def _inspect() -> int:
  """Scores a finished run or writes its page. Nothing is trained."""
  config, named = _CONFIG.value, {place for place in (_EVALUATE.value, _REPORT.value) if place}
  if len(named) > 1:
    raise UserError(f'--evaluate={_EVALUATE.value} --report={_REPORT.value}: one run at a time')
  if config is None and not named:
    raise UserError('--evaluate of which run? Give --evaluate=RUN, or the --config that it was trained with')
  from vit_jax import host
  from vit_jax.interop import sources
  from vit_jax.training import config as run_config
  from vit_jax.training import frozen, start
  from vit_jax.transfer import given

  host.hush_absent_tpu()
  cast = None
  if config is not None:
    cast = run_config.cast(config)
    cast = given.resolve(cast if named else start.fitted(cast, cli.overridden(), lambda text: None))
  if not named:
    named = [_WORKDIR.value or f'runs/{cli.recipe_name()}-{run_config.run_hash(cast)}']
    if not sources.is_run(named[0]):
      probed = frozen.bundle_of(named[0])
      if not probed.exists():
        raise UserError(f'{named[0]}: no run there; the same command without --evaluate trains it')
      named = [os.fspath(probed)]  # the run stopped at frozen features
  _score(*named, data=cast and cast.data)
  return 0


def _score(place, data=None) -> None:
  """What --evaluate and --report ask for."""
  from vit_jax.inspection import evaluation, run_page, words_page
  if _EVALUATE.value is None and words_page.is_for(place):
    if data is not None:
      raise UserError(f'--config: the page of {place} is about the texts of its own data; leave it out')
    if _CLASSES.value is not None:
      raise UserError(f'--classes={_CLASSES.value}: the page of {place} is about texts; leave it out')
    say(f'report       {words_page.write(place, _SPLIT.value)}')
    return
  with cli.Progress() as progress:
    found = evaluation.evaluate(place, _SPLIT.value, data, _CLASSES.value, progress)
  if _EVALUATE.value is not None:
    evaluation.show(found, evaluation.write(found, _OUT.value))
  if _REPORT.value is not None:
    say(f'report       {run_page.write(found)}')


def _bundle(run, workdir):
  """Where a fine-tuned classifier is laid ready for use; None for other runs, many processes and buckets."""
  import jax
  from etils import epath
  elsewhere = '://' in os.fspath(workdir) or jax.process_count() > 1
  if run.pretrained is None or not run.objective.predicts_classes or run.branch_steps or elsewhere:
    return None
  from vit_jax import interop
  from vit_jax.interop import bundle
  folder = epath.Path(workdir) / 'bundle'
  bundle.write(interop.read(workdir), folder)
  return folder


def _without_probe() -> str:
  return commands.written('train', shlex.join([*sys.argv[1:], '--config.pretrained.probe=never']))


def _steps(texts: list[str]) -> list[int]:
  if wrong := [text for text in texts if not text.isdigit()]:
    raise UserError(f'--branch_steps: {wrong[0]!r}, where numbers of steps are needed, as in 700,1400')
  return [int(text) for text in texts]


if __name__ == '__main__':
  cli.run(main)
