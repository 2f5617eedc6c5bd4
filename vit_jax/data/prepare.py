"""Downloads a TFDS data set and writes it as array_record. Only this step needs TensorFlow.

  uv run --extra prepare python -m vit_jax.data.prepare --name=cifar10 [--data_dir=DIR]
"""

import importlib.util
import shlex
import sys

from absl import flags

from vit_jax import cli
from vit_jax.data import tfds_source
from vit_jax.errors import UserError
from vit_jax.printable import say

_NAME = flags.DEFINE_string('name', None, 'NAME or NAME/CONFIG, as in the TFDS catalogue.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'The folder where TFDS keeps its data; default: that of TFDS.')


def prepare(name: str, data_dir: str | None) -> dict[str, tfds_source.TfdsSource]:
  """Prepares `NAME[/CONFIG]` in `data_dir` and returns its splits. Data that is already prepared is not changed.

  Raises:
    UserError: TensorFlow is not installed, the name is unknown, files must be downloaded by hand, or a download failed.
  """
  if importlib.util.find_spec('tensorflow') is None:
    raise UserError('preparing a data set needs TensorFlow (training does not): '
                    f'`uv run --extra prepare {tfds_source.prepare_command(name, data_dir)}`')
  builder = tfds_source.find_builder(name, data_dir)
  if not builder.info.splits:
    import tensorflow_datasets as tfds
    try:
      builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except AssertionError as error:  # TFDS asserts that manually downloaded files exist
      raise UserError(f'{name}: {tfds_source.manual_steps(builder, data_dir) or error}') from error
    except (OSError, ValueError, RuntimeError, tfds.download.DownloadError) as error:
      raise UserError(f'{name}: {type(error).__name__}: {error}') from error
  return tfds_source.open_tfds(name, data_dir)


def main():
  if not _NAME.value:
    raise UserError('--name is missing, as in --name=cifar10')
  sources = prepare(_NAME.value.replace(':', '/', 1), _DATA_DIR.value)
  for split, source in sources.items():
    print(f'{split}: {len(source):,} pictures, {len(set(source.labels.tolist()))} classes')  # also fills the cache
  place = f' --config.data.data_dir={shlex.quote(_DATA_DIR.value)}' if _DATA_DIR.value else ''
  say(f'Use it with --config.data.source={shlex.quote("tfds:" + _NAME.value.replace("/", ":"))}{place}')
  return 0


if __name__ == '__main__':
  sys.exit(cli.run(main))
