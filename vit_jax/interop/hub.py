"""Models on huggingface.co: downloaded once, then read from the cache, also offline (HF_HUB_OFFLINE=1)."""

import pathlib

from vit_jax.errors import UserError

PREFIX = 'hf:'
_FILES = ['config.json', 'preprocessor_config.json', 'model.safetensors', 'model.safetensors.index.json',
          'model-*.safetensors']


def fetch(name: str) -> pathlib.Path:
  """The local folder of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, with its configs and safetensors only.

  Raises:
    UserError: the model does not exist, there is no network and it is not in the cache, or huggingface_hub is not
      installed.
  """
  repo, _, revision = name.removeprefix(PREFIX).partition('@')
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(f"{name}: expected huggingface_hub to be installed: pip install 'vit-jax-laws[hub]'") from error
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(repo, revision=revision or None, allow_patterns=_FILES))
  except Exception as error:  # its own exceptions and those of several HTTP libraries
    reason = ' '.join(str(error).split())
    raise UserError(f'{name}: download failed ({type(error).__name__}: {reason[:200]})') from error
