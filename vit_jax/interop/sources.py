"""Where weights come from, and what they are: told by what is there, never by what a name promises."""

import os
import pathlib

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.interop import bundle, google, hub, huggingface, run_weights, timm
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.weights import Weights

_WEIGHTS = ('model.safetensors', tensors_lib.INDEX)


def read(source: str | os.PathLike, without: tuple[str, ...] = (), step: int | None = None) -> Weights:
  """The weights in a run, a bundle, or a file or folder of another program.

  Args:
    source: a run folder of `vit_jax.main`, local or a bucket path; a bundle; a folder of Hugging Face transformers or
      timm (config.json and safetensors, one file or several with an index), or such a .safetensors file with its
      config.json beside it (timm's may do without); a .npz file of the Vision Transformer's original code; or the name
      of a model on huggingface.co, `hf:OWNER/NAME`.
    without: patterns of the file's own names for tensors that may be there and unused, missing or of another shape
      (see `layout.read`). All others must fit.
    step: which checkpoint of a run; None: the one that its test score is of, or the newest where it has none.

  Raises:
    UserError: it is not there, or not what it seems to be; the message says what is wrong.
  """
  source = os.fspath(source)
  if source.startswith(hub.PREFIX):
    return _folder(hub.fetch(source), without)
  path = pathlib.Path(source)
  if is_run(source):
    return run_weights.read(source, step)
  if step is not None:
    raise UserError(f'{source}: step={step} is of a run, and this is none (no {records.RUN})')
  if path.is_dir():
    return bundle.read(path, without) if (path / bundle.MODEL).exists() else _folder(path, without)
  if path.name == bundle.TENSORS and path.with_name(bundle.MODEL).exists():
    return bundle.read(path.parent, without)
  return _file(path, without)


def is_run(source: str | os.PathLike) -> bool:
  """Whether it is a run folder; what lies in a bucket is nothing else."""
  return '://' in os.fspath(source) or (pathlib.Path(source) / records.RUN).exists()


def _folder(folder, without):
  there = [folder / name for name in _WEIGHTS if (folder / name).exists()]
  if not there:
    pickles = [p.name for p in folder.iterdir() if p.suffix in ('.bin', '.pt', '.pth', '.ckpt', '.pkl')]
    said = f'only pickles ({pickles[0]}), which can run any code when they are read; ' if pickles else ''
    raise UserError(f'{folder}: no weights there: {said}want a run ({records.RUN}), a bundle ({bundle.MODEL}) or '
                    f'{_WEIGHTS[0]}')
  return _file(there[0], without)


def _file(path, without):
  """By its config.json beside it, or by its names."""
  tensors, beside = tensors_lib.open_file(path), path.with_name('config.json')
  if google.is_of(tensors):
    return google.read(tensors, without)
  if not beside.exists():
    return timm.read(tensors, {}, without)
  config = tensors_lib.read_json(beside)
  if 'model_type' in config:
    processor = path.with_name('preprocessor_config.json')
    return huggingface.read(tensors, config, tensors_lib.read_json(processor) if processor.exists() else None, without)
  return timm.read(tensors, config, without)
