"""Reading weights from any source. The format is detected from the contents, not from the name."""

import dataclasses
import os
import pathlib
import re

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.interop import (
  bundle,
  google,
  hub,
  huggingface,
  huggingface_pairs,
  open_clip,
  open_clip_pairs,
  run_weights,
  timm,
)
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.pairs import Pairs
from vit_jax.interop.weights import Weights

_WEIGHTS = ('model.safetensors', tensors_lib.INDEX, open_clip.FILE)
# What torch.compile, DataParallel, Lightning and the timm_wrapper of transformers put before all names.
WRAPPERS = ('_orig_mod.', 'module.', 'model.', 'timm_model.')


def read(source: str | os.PathLike, without: tuple[str, ...] = (), step: int | None = None) -> Weights:
  """Reads the weights of a run, a bundle, or a file or folder of another program.

  Args:
    source: one of
      - a run folder of `vit_jax.main`, local or in a bucket;
      - a bundle;
      - a folder of Hugging Face transformers or timm, with config.json and one or several safetensors files;
      - a folder of OpenCLIP, with open_clip_config.json and open_clip_model.safetensors: its image tower;
      - a .safetensors file of these, beside its config.json;
      - a .npz file of the original Vision Transformer code;
      - the name of a model on huggingface.co, `hf:OWNER/NAME`.
    without: patterns of names in the file. Matching tensors may be unused, missing or of another shape (see
      `layout.read`). All other tensors must fit.
    step: the step of a run's checkpoint; default: the one that was scored on test, else the newest.

  Raises:
    UserError: the source does not exist or cannot be read.
  """
  source = os.fspath(source)
  if source.startswith(hub.PREFIX):
    return _fetched(hub.fetch(source), without)
  path = pathlib.Path(source)
  if is_run(source):
    return run_weights.read(source, step)
  if step is not None:
    raise UserError(f'{source}: step={step}: expected a run folder, found no {records.RUN} in it')
  if path.is_dir():
    return bundle.read(path, without) if (path / bundle.MODEL).exists() else _folder(path, without)
  if path.name == bundle.TENSORS and path.with_name(bundle.MODEL).exists():
    return bundle.read(path.parent, without)
  return _file(path, without)


def read_pairs(source: str | os.PathLike) -> Pairs:
  """Reads a model of two towers: a folder of transformers with a SigLIP or a CLIP, one of OpenCLIP, `hf:OWNER/NAME`.

  Raises:
    UserError: it is none, or cannot be read.
  """
  folder, file, reader = _pairs_in(source)
  if reader is None:
    raise UserError(f'{os.fspath(source)}: expected a run of objective=contrast, a SigLIP or CLIP of transformers with '
                    f'both towers (model_type {" or ".join(huggingface_pairs.KINDS)}), or an OpenCLIP '
                    f'({open_clip.CONFIG})')
  return reader(folder, unwrapped(tensors_lib.open_file(file)))


def has_pairs(source: str | os.PathLike) -> bool:
  """Whether `read_pairs` is for a source, which it may refuse all the same."""
  return _pairs_in(source)[2] is not None


def _pairs_in(source):
  """(folder, the file of tensors, what reads both towers from them or None)."""
  source = os.fspath(source)
  folder = hub.fetch(source) if source.startswith(hub.PREFIX) else pathlib.Path(source)
  file = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
  if file is None:
    return folder, None, None
  if huggingface_pairs.is_pairs(folder):
    return folder, file, huggingface_pairs.read
  return folder, file, open_clip_pairs.read if (folder / open_clip.CONFIG).exists() else None


def is_run(source: str | os.PathLike) -> bool:
  """Whether a source is a run folder. Bucket paths are always taken to be run folders."""
  return '://' in os.fspath(source) or (pathlib.Path(source) / records.RUN).exists()


def _fetched(folder, without):
  """Reads what was downloaded; it is not to choose which of this machine's modules are imported."""
  if not (folder / bundle.MODEL).exists():
    return _folder(folder, without)
  family = tensors_lib.read_json(folder / bundle.MODEL).get('family')
  if isinstance(family, str) and ':' in family:
    raise UserError(f'{folder}: its family is code of your own ({family}), which is not imported for a download. If '
                    'you trust it, read it as a bundle, by the path of this folder')
  return bundle.read(folder, without)


def _folder(folder, without):
  found = [folder / name for name in _WEIGHTS if (folder / name).exists()]
  if not found:
    if (folder / 'adapter_model.safetensors').exists():
      return _file(folder / 'adapter_model.safetensors', without)  # says what it is
    pickles = [p.name for p in folder.iterdir() if p.suffix in ('.bin', '.pt', '.pth', '.ckpt', '.pkl')]
    got = f'found only pickles ({pickles[0]}), which can run arbitrary code when read' if pickles else 'found none'
    raise UserError(f'{folder}: expected a run ({records.RUN}), a bundle ({bundle.MODEL}) or {_WEIGHTS[0]}, {got}')
  return _file(found[0], without)


def _file(path, without):
  """Reads a file in the format given by its config.json, or else by its tensor names."""
  tensors, beside = tensors_lib.open_file(path), path.with_name('config.json')
  _check_adapter(tensors, path)
  if google.is_google(tensors):
    return google.read(tensors, without)
  tensors = unwrapped(tensors)
  if not beside.exists() and path.with_name(open_clip.CONFIG).exists():
    return open_clip.read(tensors, tensors_lib.read_json(path.with_name(open_clip.CONFIG)), without)
  if not beside.exists():
    return timm.read(tensors, {}, without)
  config = tensors_lib.read_json(beside)
  if config.get('model_type') == 'timm_wrapper':
    return timm.read(tensors, timm.unwrapped(config, tensors.source), without)
  if 'model_type' in config:
    processor = path.with_name('preprocessor_config.json')
    return huggingface.read(tensors, config, tensors_lib.read_json(processor) if processor.exists() else None, without)
  return timm.read(tensors, config, without)


def unwrapped(tensors: tensors_lib.Tensors) -> tensors_lib.Tensors:
  """The tensors without the prefixes that wrappers put before all names; unchanged if some names have none."""
  strip = lambda names, prefix: {name: name.removeprefix(prefix) for name in names}
  while tensors.shapes and (prefix := next(
      (p for p in WRAPPERS if all(name.startswith(p) for name in (*tensors.shapes, *tensors.others))), None)):
    shapes = {name.removeprefix(prefix): shape for name, shape in tensors.shapes.items()}
    others = frozenset(strip(tensors.others, prefix).values())
    tensors = dataclasses.replace(tensors, shapes=shapes, others=others,
                                  load=lambda name, prefix=prefix, load=tensors.load: load(prefix + name))
  return tensors


def _check_adapter(tensors, path):
  """Raises UserError for the weights of an adapter, which are not a model."""
  marks = [name for name in tensors.shapes if re.search(r'(^|\.)(lora_|ia3_|hada_w|oft_|prompt_embeddings)', name)]
  if marks or path.name.startswith('adapter_model'):
    raise UserError(f'{path}: the weights of an adapter (such as LoRA), not of a model: '
                    f'{marks[0] if marks else path.name}. Merge it into its model first (merge_and_unload() of peft), '
                    'and save that')
