"""Models of huggingface.co: downloaded once, then out of the cache, also without a network (HF_HUB_OFFLINE=1)."""

import pathlib

from vit_jax.errors import UserError

PREFIX = 'hf:'
_FILES = ['config.json', 'preprocessor_config.json', 'model.safetensors', 'model.safetensors.index.json',
          'model-*.safetensors']


def fetch(name: str) -> pathlib.Path:
  """The folder of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`: its configs and safetensors, nothing else.

  Raises:
    UserError: no such model, no network and not in the cache, or huggingface_hub is not installed.
  """
  repo, _, revision = name.removeprefix(PREFIX).partition('@')
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(f"{name}: needs huggingface_hub: pip install 'vit-jax-laws[hub]'") from error
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(repo, revision=revision or None, allow_patterns=_FILES))
  except Exception as error:  # its own kinds, and those of several libraries of HTTP
    said = ' '.join(str(error).split())
    raise UserError(f'{name}: cannot be fetched ({type(error).__name__}: {said[:200]})') from error
