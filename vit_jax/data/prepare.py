"""Downloads a TFDS data set, writes it as array_record and indexes it; or indexes data that are there.

  uv run --extra prepare python -m vit_jax.data.prepare --name=cifar10 [--data_dir=DIR]
  uv run python -m vit_jax.data.prepare --index --source=folder:DIR [--data_dir=gs://BUCKET/FOLDER]
  uv run --extra icons python -m vit_jax.data.prepare --name=emoji [--data_dir=DIR]

Only to download and write a TFDS data set needs TensorFlow. Emoji, icons, stamps and clipart are rendered from packages
of npm and Debian, which are named where they are absent.
"""

import importlib.util
import shlex
import sys

from absl import flags
from etils import epath

from vit_jax import cli
from vit_jax.data import fingerprint, image_folder, label_tables, prepared_pairs, splits, tfds_source
from vit_jax.data import sources as sources_lib
from vit_jax.data.config import DataConfig
from vit_jax.data.index import positions
from vit_jax.errors import UserError
from vit_jax.printable import say

_NAME = flags.DEFINE_string(
    'name', None, 'NAME or NAME/CONFIG, as in the TFDS catalogue; or emoji, icons, stamps, clipart.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', None, 'The folder where data are kept; default: that of TFDS, of emoji and so on this user\'s cache.')
_INDEX = flags.DEFINE_bool('index', False, 'Only write the index, from which a run learns the labels at its start.')
_SOURCE = flags.DEFINE_string('source', None, 'With --index: data.source, such as folder:DIR or tfds:NAME.')


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


def index(config: DataConfig) -> list:
  """Writes an index of each split of `folder:DIR` or `tfds:NAME` beside the data; returns the paths.

  It holds the labels, and the fingerprints of the default splits; see `data.index`.

  Raises:
    UserError: the source needs no index, or its data cannot be read.
  """
  kind = config.source.partition(':')[0]
  if kind not in ('folder', 'pairs', 'tfds'):
    raise UserError(f'--source={config.source}: needs no index; expected folder:DIR, pairs:DIR or tfds:NAME')
  sources = sources_lib.open_sources(config, indexed=False)
  if kind == 'folder' and label_tables.in_folder(sources_lib.folder_of(config)):
    raise UserError(f'--source={config.source}: needs no index, as its labels are in a table')
  fingerprints = {split: {} for split in sources}
  whole = {split: splits.whole(source) for split, source in sources.items()}
  for part in (splits.assign(sources, None, None) if 'train' in sources else whole).values():
    split = next(name for name, source in sources.items() if source is part.source)
    fingerprints[split][positions(part.examples)] = fingerprint.of(part.source, part.examples, part.labels)
  if kind == 'tfds':
    return tfds_source.write_index(sources, fingerprints)
  return image_folder.write_index(sources_lib.folder_of(config), sources, fingerprints)


def main():
  if bool(_NAME.value) == bool(_SOURCE.value):
    raise UserError(f'--name is {"not for --source" if _NAME.value else "missing"}: expected --name=NAME of a TFDS '
                    'data set, as in --name=cifar10, or --index --source=folder:DIR')
  if _SOURCE.value and not _INDEX.value:
    raise UserError(f'--source={_SOURCE.value}: only with --index; --name=NAME prepares a TFDS data set')
  if _NAME.value in sources_lib.PREPARED:
    return _render(_NAME.value)
  config = DataConfig(source=_SOURCE.value or f'tfds:{_NAME.value.replace("/", ":")}', data_dir=_DATA_DIR.value)
  if _NAME.value and not _INDEX.value:
    for split, source in prepare(_NAME.value.replace(':', '/', 1), _DATA_DIR.value).items():
      print(f'{split}: {len(source):,} pictures, {len(source.class_names)} classes')
  for path in index(config):
    say(f'index: {path} ({epath.Path(path).stat().length:,} bytes)')
  _say_use(config.source)
  return 0


def _render(name):
  """Prepares a set of `sources.PREPARED`, and says what came out."""
  about = prepared_pairs.prepare(name, _DATA_DIR.value)
  of = lambda counts: ', '.join(f'{count:,} {what}' for what, count in counts.items())
  say(f'{name}: {about["pictures"]:,} pictures of {about["size"]}x{about["size"]} by {about["artists"]:,} artists, '
      f'digest {about["digest"]}, in {prepared_pairs.folder_of(name, _DATA_DIR.value)}')
  say(f'licences: {of(about["licences"])}')
  say(f'left out: {of(about["left_out"]) or "nothing"}')
  _say_use(name)
  return 0


def _say_use(source):
  place = f' --config.data.data_dir={shlex.quote(_DATA_DIR.value)}' if _DATA_DIR.value else ''
  say(f'Use it with --config.data.source={shlex.quote(source)}{place}')


if __name__ == '__main__':
  sys.exit(cli.run(main))
