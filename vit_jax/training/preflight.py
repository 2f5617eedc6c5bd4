"""What a run does before it trains, done and said: for the first pod on a cluster, and before files are sent."""

import os
import time
import uuid

from etils import epath

from vit_jax import durable, provenance
from vit_jax.errors import UserError
from vit_jax.printable import say
from vit_jax.training import run as run_lib
from vit_jax.training import run_folder
from vit_jax.training.config import RunConfig

WITHOUT_DATA = 'without_data'


def look(config: RunConfig, workdir: os.PathLike | str | None, name: str, kind: str = '') -> int:
  """Opens the data of a run, reads a batch, writes to and reads from its folder; trains nothing. Returns 0.

  Args:
    config: of the run.
    workdir: its folder; None: not known yet.
    name: of its recipe.
    kind: WITHOUT_DATA: where data are mounted elsewhere; else ''.

  Raises:
    UserError: what would have ended the run.
  """
  if kind not in ('', WITHOUT_DATA):
    raise UserError(f'--preflight={kind}: expected --preflight or --preflight={WITHOUT_DATA}')
  _say('recipe', f'{name} ({config.family}), code {provenance.code()}')
  if kind == WITHOUT_DATA:
    _say('data', f'{config.data.source}: not tried')
    if workdir is not None:
      _try(epath.Path(workdir).parent)
      _say('folder', f'{os.fspath(workdir)}: written, read and removed')
    _say('preflight', 'passed, but for the data')
    return 0
  run = _try_data(config)
  if workdir is not None:
    _try(epath.Path(workdir).parent)
    results = run_folder.finished_results(run, workdir)
    _say('folder', f'{os.fspath(workdir)}: written, read and removed; '
                   + ('the run has finished there' if results else 'the run is not finished there'))
  _say('preflight', 'passed')
  return 0


def _try_data(config):
  """The run, after its data were opened and a batch of them was read."""
  started = time.perf_counter()
  run = run_lib.prepare(config)
  data = run.data
  sizes = ', '.join(f'{data.size(split):,} {split}' for split in ('train', 'val', 'test'))
  fingerprints = run.fingerprints
  _say('data', f'{data.name}: {sizes}, {data.num_classes} classes; opened in {time.perf_counter() - started:.1f} s, '
               f'fingerprint {fingerprints["train"]}')
  batch = next(iter(data.train_batches(config.seed, 0, 1)))
  _say('batch', f'{len(batch["label"])} pictures of {"x".join(map(str, data.image_shape))} read')
  _say('run', f'{run.params:,} parameters, {run.steps:,} steps, {run.config_hash}')
  return run


def _try(folder):
  """Writes a file beside the run folder, reads it, and removes it."""
  path, content = folder / f'preflight-{uuid.uuid4().hex[:8]}', uuid.uuid4().hex
  try:
    folder.mkdir(parents=True, exist_ok=True)
    durable.write(path, content)
    found = path.read_text()
    path.unlink()
  except Exception as error:  # each store has errors of its own
    raise UserError(f'--workdir: {folder} cannot be written and read: {type(error).__name__}: {error}') from error
  if found != content:
    raise UserError(f'--workdir: {path} was written, and came back as other text')


def _say(what, text):
  say(f'{what:<10} {text}')
