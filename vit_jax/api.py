"""What the commands do, from Python, by the same code: `vit_jax.train('quickstart')`.

Each function takes what its command takes, and returns an object with arrays and tables that shows itself as the
command prints it (`shown.Shown`). What is wrong is an `errors.UserError`, whose message says what would be right.
Libraries are as quiet as they are under the commands.
"""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import ml_collections
import numpy as np
from absl import logging

from vit_jax import checkpoint, durable, host, records
from vit_jax import recipe as recipe_lib
from vit_jax.console import Console, is_notebook
from vit_jax.errors import UserError
from vit_jax.inspection.attention import Attention
from vit_jax.outcomes import Comparison, Evaluation, Law, Laws, Plan, Predictions, Run, Runs
from vit_jax.shown import Table

Recipe: TypeAlias = str | os.PathLike | ml_collections.ConfigDict  # a name, a file, or what `config.defaults` returns
F = TypeVar('F', bound=Callable)


def _as_a_command(function: F) -> F:
  """Makes libraries as quiet as under a command while the function runs."""
  @functools.wraps(function)
  def quiet(*arguments, **named):
    _prepare_process()
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
      return function(*arguments, **named)
    finally:
      logging.set_verbosity(before)
  return quiet  # type: ignore[return-value]


@functools.cache
def _prepare_process():
  host.hush_absent_tpu()
  host.keep_freed_memory()
  checkpoint.hush_late_callbacks()


@_as_a_command
def train(config: Recipe, workdir: str | os.PathLike | None = None, *, quiet: bool = False, **changes: Any) -> Run:
  """Trains a recipe, resumes a run that was stopped, or reads one that has finished; as `vit-jax train` does.

  Args:
    config: a recipe's name or file, such as 'quickstart' or 'mine.py:large', or a ConfigDict.
    workdir: the run folder; default: runs/NAME-HASH.
    quiet: whether to print nothing.
    **changes: keys of the config: train={'steps': 200}, seed=1, or **{'train.steps': 200}. A length replaces the
      recipe's.

  Raises:
    UserError: an error in the config, or one that ends the run.
    KeyboardInterrupt: after Ctrl-C, once the run has saved; the same call resumes it.
  """
  from vit_jax.survival import stop
  from vit_jax.training import config as run_config
  from vit_jax.training import frozen, notebook, start
  from vit_jax.training.display import Display
  recipe, name, given = _changed(config, changes)
  cast = run_config.cast(recipe)
  host.use_deterministic_ops(cast.system.deterministic)
  in_cell = is_notebook() and not quiet
  display = notebook.NotebookDisplay() if in_cell else Display(Console(highlight=False, quiet=quiet))
  run = start.prepare(cast, given, workdir, display.note)
  workdir = os.fspath(workdir or f'runs/{name}-{run.config_hash}')
  if frozen.wanted(run):
    display.header(run, name, workdir, frozen.estimate_seconds(run))
    results = frozen.run_probe(run, workdir, display.note)
    return Run(os.fspath(results['bundle']), results)
  try:
    return Run(workdir, start.to_results(run, name, workdir, display))
  except stop.Stopped:
    display.stopped(workdir)
    raise KeyboardInterrupt(f'{workdir}: stopped and saved; the same call resumes it') from None


@_as_a_command
def evaluate(run: str | os.PathLike | Run, split: str = 'test', config: Recipe | None = None,
             **changes: Any) -> Evaluation:
  """Scores a trained model on a split of its own data, or on that of `config`; as `vit-jax train --evaluate=RUN`.

  Args:
    run: what `train` returned, a run folder, a bundle or an exported file.
    split: 'test', 'val' or 'train'.
    config: whose data to score; with changes, as in `train`.

  Raises:
    UserError: there is no model or no data, or the data has a class that the model does not know.
  """
  from vit_jax.inspection import evaluation
  from vit_jax.training import config as run_config
  if config is None and changes:
    raise UserError(f'evaluate: {", ".join(changes)} changes a config, but no config is given')
  data = None if config is None else run_config.cast(_changed(config, changes)[0]).data
  return Evaluation(evaluation.evaluate(_place(run), split, data))


@_as_a_command
def predict(run: str | os.PathLike | Run, pictures: Any, batch_size: int = 64) -> Predictions:
  """Classifies pictures; as `vit-jax predict RUN PICTURES`.

  Args:
    run: as in `evaluate`.
    pictures: a file or a folder, a sequence of such, or an array uint8 [N, H, W] or [N, H, W, C].
    batch_size: the number of pictures computed at a time.

  Raises:
    UserError: there is no model or no picture, or none of them can be read.
  """
  model = _model(run)
  prepared, unreadable = _prepared(model, pictures)
  return Predictions(tuple(prepared), model.class_names, model.probabilities(list(prepared.values()), batch_size),
                     unreadable, model.several_labels)


@_as_a_command
def attention(run: str | os.PathLike | Run, pictures: Any) -> Attention:
  """Computes attention maps of pictures; as `vit-jax predict RUN PICTURES --attention`.

  Args:
    run, pictures: as in `predict`.

  Raises:
    UserError: no picture can be read, or the model has no global attention.
  """
  from vit_jax.inspection import attention as attention_lib
  model = _model(run)
  attention_lib.check(model)
  return attention_lib.attention(model, list(_prepared(model, pictures)[0].values()))


@_as_a_command
def sweep(sweep: Any, workdir: str | os.PathLike | None = None, jobs: int | None = None, *,
          quiet: bool = False) -> Runs:
  """Trains the runs of a sweep that are missing; as `vit-jax sweep`, which it starts, because each run is a process.

  Args:
    sweep: a name or file, such as 'digits_law' or 'mine.py:small', or a `sweeps.Sweep`, which is written to
      WORKDIR/sweep.py.
    workdir: the folder of the run folders; default: runs/NAME. It must be given for a `Sweep`.
    jobs: processes at a time.
    quiet: whether to print nothing.

  Raises:
    UserError: an error in the sweep, or a run that has failed.
  """
  from vit_jax.sweeps.spec import Sweep
  if isinstance(sweep, Sweep):
    if workdir is None:
      raise UserError('sweep: a Sweep has no name, so give a workdir')
    sweep = _written(sweep, pathlib.Path(workdir))
  file = pathlib.Path(os.fspath(sweep).partition(':')[0])
  workdir = os.fspath(workdir or f'runs/{file.absolute().parent.name if file.stem == "sweep" else file.stem}')
  words = [f'--sweep={os.fspath(sweep)}', f'--workdir={workdir}', *([f'--jobs={jobs}'] if jobs else [])]
  plain = {name: value for name, value in os.environ.items() if name != 'FORCE_COLOR'}  # which kernels set
  process = subprocess.Popen([sys.executable, '-m', 'vit_jax.sweep', *words], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, env=plain)
  assert process.stdout is not None  # it is a pipe
  with contextlib.closing(process.stdout) as lines:
    said = []
    for line in lines:
      said.append(line)
      if not quiet:
        print(line, end='')
  if process.wait():
    raise UserError(f'sweep: it ended with code {process.returncode}: {"".join(said[-5:]).strip()}')
  return runs(workdir)


def runs(workdir: str | os.PathLike) -> Runs:
  """The run folders at or below a folder, which may be of one sweep or of many."""
  from etils import epath

  from vit_jax.scaling import tables
  folders = [folder for folder in tables.find_runs(epath.Path(workdir)) if folder.parent.name != 'trunks']
  return Runs(os.fspath(workdir), tuple((os.fspath(folder), records.read_run(folder) or {}) for folder in folders))


@overload
def fit(data: Any, form: str = 'auto', x: str | None = None, *, group: None = None, **options: Any) -> Law: ...
@overload
def fit(data: Any, form: str = 'auto', x: str | None = None, *, group: str, **options: Any) -> Laws: ...
@_as_a_command
def fit(data: Any, form: str = 'auto', x: str | None = None, *, group: str | None = None, **options: Any) -> Law | Laws:
  """Fits a law; as `vit-jax law`.

  Args:
    data: what `sweep` returned, run folders or tables (one path or several), or a table itself: a dict of columns, a
      list of dicts, or a pandas.DataFrame.
    form, x, group: the flags of the command. With a group there is a law for each value of that column.
    **options: its other flags: metric, holdout, where, columns, budget, bootstrap, start, curves, compare, target and
      so on (`law_options.Options`). Lists can be sequences, and columns a mapping.

  Raises:
    UserError: an unknown option, options that do not go together, or data that the form cannot be fitted to.
  """
  from vit_jax import law_fit, law_options
  given = law_options.of(form=form, x=x, group=group, **options)
  with _paths(data) as paths:
    found = law_fit.fit(paths, given)
  if group is None:
    return Law(found.groups[''], found.loaded.time_spent)
  return Laws(found)


@_as_a_command
def plan(config: Recipe, tpu: str | None = None, num_slices: int = 1, *, gpu: str | None = None, compiled: bool = True,
         **changes: Any) -> Plan:
  """Plans a run for TPUs or GPUs that are not here; as `vit-jax plan`.

  Args:
    config: as in `train`, with the same changes.
    tpu: the slice, such as 'v5e-16'.
    num_slices: the number of slices.
    gpu: instead of a slice, GPUs, such as 'h100-8'; the plan is then an estimate.
    compiled: whether to use the TPU compiler, where it is installed; else the plan is an estimate.

  Raises:
    UserError: no such slice or GPU, or an error in the config.
  """
  from vit_jax.cost import gpus
  from vit_jax.rehearsal import compiler, run_plan
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.training import config as run_config
  target, (recipe, name, _) = gpus.target(tpu, gpu, num_slices), _changed(config, changes)
  job = job_lib.open_job(run_config.cast(recipe))
  exact = compiled and compiler.missing(target.platform) is None
  make: Callable[..., Any] = run_plan.compiled if exact else run_plan.estimated
  planned = lambda choice: make(job, target, choice, target.chip.hbm_bytes)
  return Plan(run_plan.first_that_fits(job, target, planned), name)


@_as_a_command
def compare(a: str | os.PathLike | Run, b: str | os.PathLike | Run, tolerance: float = 0.0) -> Comparison:
  """Finds where two runs part; as `vit-jax compare A B`. Raises UserError where there is nothing to compare."""
  from vit_jax.comparison import runs as comparison
  return Comparison(comparison.compare(_place(a), _place(b), tolerance))


def arrays(x: Any, y: Any = None, *, captions: Sequence[str | Sequence[str]] | None = None,
           val: tuple[Any, ...] | None = None, test: tuple[Any, ...] | None = None,
           class_names: Sequence[str] | None = None) -> str:
  """Makes arrays a source of data: vit_jax.train('quickstart', data={'source': vit_jax.arrays(x, y)}).

  They are there in this process only. A run's identity has a digest of their contents.

  Args:
    x: pictures, uint8 [N, H, W] or [N, H, W, C], or floats from 0 to 1.
    y: labels [N], numbers from 0 or names; or [N, C] of 0 and 1, where a picture can have several; None where there
      are captions instead.
    captions: a text of each picture, or several.
    val, test: (x, y) or (x, y, captions) of these splits. Without them they are cut from x and y.
    class_names: the names of the classes, in the order of the numbers.

  Raises:
    UserError: a shape, a type, a label or a caption that does not fit.
  """
  from vit_jax.data import array_sources
  given = {'train': (x, y, captions), 'val': val, 'test': test}
  return array_sources.register({split: pair for split, pair in given.items() if pair is not None}, class_names)


def _changed(config: Recipe, changes: Mapping[str, Any]) -> tuple[ml_collections.ConfigDict, str, set[str]]:
  """(the recipe with the changes, its name, the keys that are changed)."""
  from vit_jax import schema
  if isinstance(config, ml_collections.ConfigDict):
    recipe, name = config.copy_and_resolve_references(), config.get('family', 'run')
  else:
    spec = os.fspath(config)
    recipe, name = recipe_lib.load_recipe(spec), pathlib.Path(spec.partition(':')[0]).stem
  given = schema.flat(dict(changes))
  for key in given:
    recipe_lib.check_key(recipe, key)
  for key, value in (dict.fromkeys(recipe_lib.replaced_lengths(recipe, given), 0) | given).items():
    recipe_lib.set_all(recipe, [key], value)
  return recipe, name, set(given)


def _place(run: str | os.PathLike | Run) -> str:
  return run.place if isinstance(run, Run) else os.fspath(run)


def _model(run):
  from vit_jax.training import trained
  return trained.load(_place(run))


def _prepared(model, pictures):
  """({name: pixels}, {name: why}) of pictures that can and cannot be read."""
  from vit_jax.data import folder_names
  from vit_jax.data.pictures import BadPicture
  if isinstance(pictures, np.ndarray):
    named = [(str(i), picture if picture.ndim == 3 else picture[..., None]) for i, picture in enumerate(pictures)]
  else:
    places = [pictures] if isinstance(pictures, (str, os.PathLike)) else pictures
    named = [(os.fspath(path), path) for path in folder_names.find(places)]
  prepared, unreadable = {}, {}
  for name, picture in named:
    try:
      prepared[name] = model.prepare(picture)
    except BadPicture as error:
      unreadable[name] = str(error)
  if not prepared:
    first = next(iter(unreadable.items()), None)
    raise UserError(f'none of the {len(named)} pictures could be read' + (f': {": ".join(first)}' if first else ''))
  return prepared, unreadable


def _written(sweep, workdir):
  """A sweep as a file that says the same."""
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / 'sweep.py'
  durable.write(path, 'from vit_jax.sweeps import Sweep\n\n\ndef get_sweep():\n'
                f'  return Sweep({sweep.recipe!r}, {list(sweep.runs)!r})\n')
  return path


@contextlib.contextmanager
def _paths(data):
  """What `points.load` reads: the paths, or a temporary table of the rows."""
  if isinstance(data, (str, os.PathLike)):
    yield [data]
  elif isinstance(data, (Run, Runs)):
    yield [data.place]
  elif isinstance(data, Iterable) and all(isinstance(item, (str, os.PathLike)) for item in data) and not isinstance(
      data, Mapping) and not hasattr(data, 'to_dict'):
    yield list(data)
  else:
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'table.jsonl'
      Table.of(_rows(data)).write(path)
      yield [path]


def _rows(data):
  """The rows of a table in memory."""
  if hasattr(data, 'to_dict') and hasattr(data, 'columns'):  # of pandas
    return data.to_dict('records')
  if isinstance(data, Table):
    return data.rows
  if isinstance(data, Mapping):
    columns = {name: np.asarray(values).tolist() for name, values in data.items()}
    if len({len(values) for values in columns.values()}) != 1:
      raise UserError(f'fit: columns of {", ".join(str(len(values)) for values in columns.values())} values; expected '
                      'as many in each')
    return [dict(zip(columns, row)) for row in zip(*columns.values())]
  return data
