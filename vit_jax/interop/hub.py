"""Models on huggingface.co: downloaded once, then read from the cache, also offline (HF_HUB_OFFLINE=1); and pushed."""

import os
import pathlib
import re

from vit_jax.errors import UserError

PREFIX, TO = 'hf:', 'hub:'  # where a model is read from, and what it is written for
_NAME = re.compile(r'[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*')
_FILES = ['model.json', 'weights.safetensors',  # of a bundle
          'config.json', 'preprocessor_config.json', 'model.safetensors', 'model.safetensors.index.json',
          'model-*.safetensors',
          'open_clip_config.json', 'open_clip_model.safetensors',
          'tokenizer.json', 'spiece.model', 'tokenizer_config.json']  # of models of pictures and texts


def fetch(name: str) -> pathlib.Path:
  """The local folder of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, with its configs and safetensors only.

  Raises:
    UserError: the model does not exist, there is no network and it is not in the cache, or huggingface_hub is not
      installed.
  """
  repo, _, revision = name.removeprefix(PREFIX).partition('@')
  huggingface_hub = client(name)
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(repo, revision=revision or None, allow_patterns=_FILES))
  except Exception as error:  # its own exceptions and those of several HTTP libraries
    reason = ' '.join(str(error).split())
    raise UserError(f'{name}: download failed ({type(error).__name__}: {reason[:200]})') from error


def repository(to: str) -> str:
  """OWNER/NAME of hub:OWNER/NAME. Raises UserError for anything else."""
  name = to.removeprefix(TO)
  if not _NAME.fullmatch(name) or len(name) > 96:
    raise UserError(f'--to={to}: expected {TO}OWNER/NAME, of letters, digits, and -_. inside, at most 96 characters')
  return name


def client(what: str):
  """The module huggingface_hub; UserError, which begins with `what`, if it is not installed."""
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(f"{what}: expected huggingface_hub to be installed: pip install 'vit-jax-laws[hub]'") from error
  return huggingface_hub


def push(folder: os.PathLike, name: str) -> str:
  """Uploads a folder as OWNER/NAME, which is created if it does not exist; returns the address of the commit.

  Raises:
    UserError: huggingface_hub is not installed, or the hub refuses or does not answer.
  """
  api = client(f'--to={TO}{name}').HfApi()
  try:
    api.create_repo(name, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=os.fspath(folder), commit_message='Written by vit_jax'))
  except Exception as error:  # its own exceptions and those of several HTTP libraries
    reason = ' '.join(str(error).split())
    raise UserError(f'{TO}{name}: upload failed ({type(error).__name__}: {reason[:200]}). To log in: hf auth login. '
                    f'The folder is complete: {os.fspath(folder)}') from error
