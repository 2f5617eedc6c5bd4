"""Writing weights in each format that `sources.read` reads, as an exported file, or as a repository of the hub."""

import functools
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import numpy as np

from vit_jax import durable
from vit_jax.errors import UserError, nearest
from vit_jax.interop import (
  bundle,
  card,
  exported,
  google,
  hub,
  huggingface_writer,
  mae_writer,
  onnx_file,
  pairs_writer,
  processors,
  tensors,
  timm_writer,
)
from vit_jax.interop.weights import Weights
from vit_jax.printable import say

_TENSORS, _CONFIG, _PROCESSOR = 'model.safetensors', 'config.json', 'preprocessor_config.json'


def write(weights: Weights, out: str | os.PathLike, to: str, license: str | None = None) -> None:
  """Writes weights as 'bundle', 'hf', 'timm', 'hub:OWNER/NAME' (folders), 'npz', 'onnx' or 'stablehlo' (files).

  Args:
    weights: the model.
    out: the folder or file.
    to: the format.
    license: the licence of the weights, for the card of a bundle or of the hub.

  Raises:
    UserError: `out` exists, or the format cannot represent the model.
  """
  card.check_license(license)
  if to.startswith(hub.TO):
    writer = functools.partial(_hub, name=hub.repository(to), license=license)
  elif to == 'bundle':
    writer = functools.partial(bundle.write, license=license)
  elif to in _WRITERS:
    writer = _WRITERS[to]
  else:
    raise UserError(f'to={to!r}: unknown format{nearest(to, ("bundle", *_WRITERS))}')
  out = new_export(out) if to == 'stablehlo' else _new(out)
  if to == 'onnx' and out.suffix != onnx_file.SUFFIX:
    raise UserError(f'{out}: expected a name that ends in {onnx_file.SUFFIX}')
  out.parent.mkdir(parents=True, exist_ok=True)
  writer(weights, out)
  if to in _PLAIN and weights.temperature != 1:
    say(f'note: {out} has the logits as they are: divide them by {weights.temperature:.6g} (--to={to} has no place for '
        'the temperature)', sys.stderr)


def new_export(out: str | os.PathLike) -> pathlib.Path:
  """The path of an exported file that is not there yet. Raises UserError if it is, or for another suffix."""
  out = _new(out)
  if not exported.is_exported(out):
    raise UserError(f'{out}: expected a name that ends in {exported.SUFFIX}, by which vit_jax.predict recognizes it')
  return out


def _hub(weights, folder, name, license):
  """A bundle, and the files of transformers beside it where that has the model."""
  try:
    _huggingface(weights, folder)
  except UserError as error:
    say(f'note: no files of transformers: {error}', sys.stderr)
  bundle.write(weights, folder, license=license, name=name, transformers=(folder / _TENSORS).exists())


def write_mae(weights: Weights, options: Any, positions_TD: np.ndarray, out: str | os.PathLike) -> None:
  """Writes a masked autoencoder with its decoder as a folder for transformers' ViTMAEForPreTraining.

  Args:
    weights: all parameters of a run of objective=reconstruct.
    options: its config.loss.
    positions_TD: the decoder's fixed positions.
    out: the folder.

  Raises:
    UserError: `out` exists, or transformers does not have the model.
  """
  out, weights = _new(out), mae_writer.representable(weights)
  texts = {_CONFIG: mae_writer.config_json(weights, options), _PROCESSOR: processors.write(weights.preprocessing)}
  out.parent.mkdir(parents=True, exist_ok=True)
  _folder(out, mae_writer.write(weights, positions_TD), texts)


def write_pairs(weights: Weights, options: Any, tokenizer: Any, clean: str, file: str | None,
                out: str | os.PathLike) -> None:
  """Writes both towers as a folder for transformers' SiglipModel or CLIPModel, with the tokenizer if it is in a file.

  Args:
    weights: all parameters of a run of objective=contrast.
    options: its config.loss.
    tokenizer: its tokenizer (`data.text`).
    clean: what is done to a text before (`data.text`).
    file: the tokenizer.json or SentencePiece model that it was read from; None: none.
    out: the folder.

  Raises:
    UserError: `out` exists, or transformers does not have the model.
  """
  out = _new(out)
  config = pairs_writer.config_json(weights, options, tokenizer.length, tokenizer.end)
  marks = pairs_writer.tokenizer_config(file, config['model_type'], tokenizer, clean)
  texts = {_CONFIG: config, _PROCESSOR: processors.write(weights.preprocessing)} | (
      {'tokenizer_config.json': marks} if marks else {})
  out.parent.mkdir(parents=True, exist_ok=True)
  _folder(out, pairs_writer.write(weights, options), texts)
  if file is not None:
    shutil.copyfile(file, out / ('tokenizer.json' if file.endswith('.json') else 'spiece.model'))


def _new(out):
  out = pathlib.Path(out)
  if out.is_file() or out.is_dir() and any(out.iterdir()):
    raise UserError(f'{out}: already exists and is not empty; expected a new path')
  return out


def _huggingface(weights, folder):
  config, processor = huggingface_writer.config_json(weights), processors.write(weights.preprocessing)
  _folder(folder, huggingface_writer.write(weights), {_CONFIG: config, _PROCESSOR: processor})


def _timm(weights, folder):
  config = timm_writer.config_json(weights)
  _folder(folder, timm_writer.write(weights), {_CONFIG: config})


def _folder(folder, arrays, texts):
  folder.mkdir(exist_ok=True)
  tensors.write(folder / _TENSORS, arrays, {'format': 'pt'})  # transformers requires it
  for name, fields in texts.items():
    durable.write(folder / name, json.dumps(fields, indent=2) + '\n')


def _npz(weights, path):
  arrays = google.write(weights)
  with path.open('wb') as file:
    np.savez(file, **arrays)


_PLAIN = ('hf', 'timm', 'npz')  # formats without a place for a temperature
_WRITERS = {'hf': _huggingface, 'timm': _timm, 'npz': _npz, 'onnx': onnx_file.write,
            'stablehlo': exported.write}
