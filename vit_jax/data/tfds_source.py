"""TensorFlow Datasets prepared as array_record, read without TensorFlow. Pictures are decoded by Pillow."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from vit_jax.data import caption_files, pictures
from vit_jax.data import index as index_lib
from vit_jax.errors import UserError, nearest

_IN_MEMORY_BYTES = 2**30
_READ_AT_ONCE = 1024
_LOOKED_AT = 16  # examples of which one has a caption, where captions are public
_AT_ONCE = 16  # files that are opened at the same time, as most of the time is spent waiting for remote storage

# Names of splits in TFDS -> our names.
_SPLITS = {'train': 'train', 'validation': 'val', 'val': 'val', 'dev': 'val', 'test': 'test'}


class NotPrepared(UserError):
  """The data set has not been prepared on this machine."""


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
  """One split. `records` holds raw serialised examples; `features` parses the picture and its label or captions.

  `label_key` is None where there are captions or several labels a picture; `captions_key` or `several_key` is then the
  path to their feature.
  """

  name: str
  class_names: tuple[str, ...]
  channels: int
  image_size: tuple[int, int] | None
  split: str
  records: Any
  features: Any
  image_key: str
  label_key: str | None
  captions_key: tuple[str, ...]
  several_key: tuple[str, ...]
  folder: str  # of the prepared data
  index: index_lib.Index | None = None

  @functools.cached_property
  def labels(self):
    """The labels, of the index or else cached in a small .npy file. The first time, all records are read."""
    if self.index is not None:
      return self.index.labels
    if self.several_key:
      return self._needed('several_labels', lambda: self._scan(self._several))
    if self.label_key is None:
      return np.zeros(len(self), np.int32)
    return self._needed('labels', lambda: self._scan(lambda example: example[self.label_key]).astype(np.int32))

  @property
  def several_labels(self):
    return bool(self.several_key)

  def _several(self, example):
    """The labels of an example, uint8 [C] of 0 and 1: of numbers of classes, or of a truth for each class."""
    value = _inside(example, self.several_key)
    if isinstance(value, dict):
      return np.array([value[name] for name in self.class_names], np.uint8)
    labels, numbers = np.zeros(len(self.class_names), np.uint8), np.asarray(value, np.int64)
    labels[numbers[numbers >= 0]] = 1
    return labels

  @functools.cached_property
  def captions(self):
    """The captions of each picture, of the index or else cached in a small .npy file; None for a set with classes."""
    if not self.captions_key:
      return None
    if self.index is not None:
      return self.index.captions
    lines = self._needed('captions', lambda: np.frombuffer(json.dumps(
        [texts for _, some in self._picked(self._texts, list) for texts in some]).encode(), np.uint8))
    found = list(map(tuple, json.loads(bytes(lines))))
    if without := [i for i, texts in enumerate(found) if not texts]:
      raise UserError(f'{self.where(without[0])}: no caption, as in {len(without):,} of {len(found):,}; expected at '
                      'least one for each picture. Save those that have one as pairs:DIR')
    return found

  def _texts(self, example):
    """The captions in an example."""
    value = _inside(example, self.captions_key)
    texts = (caption_files.clean(text.decode(errors='replace')) for text in np.atleast_1d(value).tolist())
    return list(dict.fromkeys(filter(None, texts)))

  @functools.cached_property
  def images(self):
    """The pictures uint8 [N,H,W,C] of a small data set with pictures of one size, cached in a .npy file; else None."""
    if self.image_size is None or len(self) * np.prod(self.image_size) * self.channels > _IN_MEMORY_BYTES:
      return None
    try:
      return self._cached('images', lambda: self._scan(
        lambda example: pictures.decode(example[self.image_key], self.channels)))
    except pictures.BadPicture:
      return None  # they are then read one by one, and on_error applies

  def __len__(self):
    return len(self.records)

  def read(self, i):
    try:
      return self._example(self.records[int(i)])[self.image_key]
    except Exception as error:  # a damaged record raises any of absl's status codes
      raise pictures.BadPicture(str(error)) from error

  def where(self, i):
    return f'{self.name}, {self.split} record {i}'

  key = where

  def has_labels(self) -> bool:
    """Whether labels or captions are public. Labels that are held back, as in imagenet2012's test, are all -1."""
    try:
      if self.label_key is None:
        some = (self._example(self.records[i]) for i in range(min(len(self), _LOOKED_AT)))
        return any(self._several(one).any() if self.several_key else self._texts(one) for one in some)
      return self._example(self.records[0])[self.label_key] >= 0
    except Exception:  # a damaged first record is reported when the labels are read
      return True

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key not in ('images', 'captions')}  # of workers

  def _example(self, raw):
    import tensorflow_datasets as tfds
    return self.features.deserialize_example_np(raw, decoders={self.image_key: tfds.decode.SkipDecoding()})

  def _picked(self, pick: Callable[[dict], Any], gather: Callable[[list], Any]) -> Iterator[tuple[range, Any]]:
    """Yields what is picked of all examples, some at once, with their numbers."""
    for start in range(0, len(self), _READ_AT_ONCE):
      rows = range(start, min(start + _READ_AT_ONCE, len(self)))
      try:
        values = gather([pick(self._example(raw)) for raw in self.records.__getitems__(list(rows))])
      except Exception as error:
        raise pictures.BadPicture(f'records {rows[0]} to {rows[-1]}: {error}') from error
      yield rows, values

  def _scan(self, pick: Callable[[dict], Any]) -> np.ndarray:
    out = None
    for rows, values in self._picked(pick, np.stack):
      if out is None:
        out = np.empty((len(self), *values.shape[1:]), values.dtype)
      out[rows.start:rows.stop] = values
    return out

  def _needed(self, what, make):
    """What is cached, of data of which no example can be missing."""
    try:
      return self._cached(what, make)
    except pictures.BadPicture as error:
      raise UserError(f'{self.name}, {self.split}: {error}; the data in {self.folder} is damaged: remove it and '
                      'prepare it again') from error

  def _cached(self, what, make):
    return _npy_cache(pathlib.Path(self.folder), f'{what}-{self.split}-{len(self)}', make)


def open_tfds(name: str, data_dir: str | None, indexed: bool = True) -> dict[str, TfdsSource]:
  """Opens the splits of `NAME[/CONFIG]`, 'train', 'val' and 'test', that exist and have labels.

  Args:
    name: of the data set.
    data_dir: where TFDS keeps its data; None: its default.
    indexed: whether the labels are those of an index beside the data, if there is one.

  Raises:
    NotPrepared: the data has not been prepared; the message has the command that prepares it.
    UserError: the name is unknown, the data has another file format or is not pictures with classes or captions, or a
      shard is damaged.
  """
  if data_dir and '://' in data_dir:
    raise UserError(f'tfds:{name}: data_dir={data_dir}: array_record files are read through the file system. Mount the '
                    'bucket and give the folder; vit_jax.sweep --launcher --data_dir does both')
  builder = find_builder(name, data_dir)
  if not builder.info.splits:
    raise NotPrepared(_how_to_prepare(builder, name, data_dir))
  info, features = builder.info, builder.info.features
  if info.file_format is None or info.file_format.value != 'array_record':
    raise UserError(f'tfds:{name}: prepared in {builder.data_dir} as {info.file_format.value}; only array_record can '
                    f'be read without TensorFlow. Remove that folder and run `{prepare_command(name, data_dir)}`')
  image_key, label_key, captions_key, several_key = _keys(name, info)
  import tensorflow_datasets as tfds
  height, width, channels = features[image_key].shape
  common = {
    'name': name,
    'class_names': tuple(features[label_key].names) if label_key else _names(features, several_key),
    'channels': 1 if channels == 1 else 3,
    'image_size': (height, width) if height and width else None,
    'features': tfds.features.FeaturesDict({key: features[key] for key in (
      image_key, label_key or (captions_key or several_key)[0])}),
    'image_key': image_key, 'label_key': label_key, 'captions_key': captions_key, 'several_key': several_key,
    'folder': str(builder.data_dir),
  }
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  sources = {}
  for split in info.splits:
    if split in _SPLITS and info.splits[split].num_examples:
      _check_shards(name, info.splits[split])
      records = builder.as_data_source(split=split, deserialize_method=raw)
      index = index_lib.read(builder.data_dir, split, state(builder.data_dir)) if indexed else None
      source = TfdsSource(split=split, records=records, **common, index=index)
      if index is not None or source.has_labels():
        sources[_SPLITS[split]] = source
  if not sources:
    raise UserError(f'tfds:{name}: has {", ".join(info.splits)}, but no train, validation or test split with labels '
                    'or captions')
  return sources


def state(folder: str) -> str:
  """A text that changes when TFDS prepares the data again: a digest of its description of them, shards included."""
  hashed = hashlib.sha256()
  for path in sorted(pathlib.Path(folder).glob('*.json')):
    hashed.update(path.name.encode() + path.read_bytes())
  return hashed.hexdigest()[:16]


def write_index(sources: dict[str, TfdsSource], fingerprints: dict[str, dict[str, str]]) -> list:
  """Writes the index of each split beside its data; see `image_folder.write_index`."""
  return [index_lib.write(source.folder, source.split, state(source.folder), source.labels,
                          captions=source.captions, class_names=source.class_names, image_size=source.image_size,
                          fingerprints=fingerprints.get(split, {})) for split, source in sources.items()]


def _check_shards(name, split):
  """Refuses truncated files, as reading them would return wrong records or hang."""
  from array_record.python import array_record_module

  def count(path):
    try:
      reader = array_record_module.ArrayRecordReader(os.fspath(path))
      found = reader.num_records()
      reader.close()  # raises an error if the file is damaged
      return found
    except Exception as error:  # any of absl's status codes
      return str(error) or type(error).__name__

  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    for path, wanted, found in zip(split.filepaths, split.shard_lengths, pool.map(count, split.filepaths)):
      if found != wanted:
        has = found if isinstance(found, str) else f'{found} readable records instead of {wanted}'
        raise UserError(f'tfds:{name}: the file {path} is damaged or truncated ({has}). Fetch it again, or remove '
                        f'{path.parent} and prepare the data again')


def find_builder(name: str, data_dir: str | None):
  """TFDS's builder of `NAME[/CONFIG]`. Raises UserError with the nearest name if there is none."""
  import tensorflow_datasets as tfds
  try:
    return tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as error:
    known = tfds.list_builders(with_community_datasets=False)  # the list of community data sets needs the network
    raise UserError(f'tfds:{name}: TFDS has no such data set{_did_you_mean(name.partition("/")[0], known)}') from error
  except (ValueError, RuntimeError, OSError) as error:
    if 'BuilderConfig' in str(error):
      base, _, config = name.partition('/')
      configs = [c.name for c in tfds.builder_cls(base).BUILDER_CONFIGS]
      raise UserError(f'tfds:{base}: no config {config!r}{nearest(config, configs)}') from error
    raise UserError(f'tfds:{name}: {str(error).splitlines()[0]}') from error


def _did_you_mean(name, known):
  """Like `nearest`, but without the list of more than a thousand names if none is near."""
  near = nearest(name, known)
  return near if 'did you mean' in near else '; see https://www.tensorflow.org/datasets/catalog'


def prepare_command(name: str, data_dir: str | None) -> str:
  """The command that downloads and prepares a data set."""
  place = f' --data_dir={shlex.quote(str(data_dir))}' if data_dir else ''
  return f'python -m vit_jax.data.prepare --name={shlex.quote(name)}{place}'


def manual_steps(builder, data_dir: str | None) -> str:
  """Instructions for files that must be downloaded by hand; '' if there are none."""
  if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    return ''
  folder = pathlib.Path(data_dir or os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets'), 'downloads', 'manual')
  what = ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
  return f'Its files must be downloaded by hand. Put them into {folder}: {what}'


def _how_to_prepare(builder, name, data_dir):
  steps = manual_steps(builder, data_dir)
  return f'tfds:{name}: not prepared in {builder.data_dir}. ' + (
    f'{steps} Then run ' if steps else 'Run ') + f'`{prepare_command(name, data_dir)}`'


def _keys(name, info):
  """The names of the picture and of the label, and where there is none the path to captions, or else to several labels.

  Paths that are not needed are ().
  """
  import tensorflow_datasets as tfds
  found = []
  for kind in (tfds.features.Image, tfds.features.ClassLabel):
    keys = [key for key, feature in info.features.items() if isinstance(feature, kind)]
    supervised = [key for key in info.supervised_keys or () if key in keys]
    found.append((supervised or keys or [None])[0])
  image_key, label_key = found
  captions = () if label_key else _captions_key(info.features)
  several = () if label_key or captions else _several_key(info.features)
  if image_key is None or not (label_key or captions or several):
    raise UserError(f'tfds:{name}: no {"ClassLabel" if image_key else "Image"} among its features '
                    f'{sorted(info.features)}; expected pictures with classes, or with captions')
  return image_key, label_key, captions, several


def _several_key(features):
  """The path to the classes of each picture: a sequence of them, those of its objects, or a truth for each class."""
  import tensorflow_datasets as tfds
  is_class = lambda feature: isinstance(feature, tfds.features.ClassLabel)
  inside = {name: getattr(feature, 'feature', None) for name, feature in sorted(features.items())}  # of sequences
  of_objects = [(name, key) for name, inner in inside.items() if hasattr(inner, 'items')
                for key in inner if is_class(inner[key])]
  truths = [(name,) for name, feature in sorted(features.items()) if isinstance(feature, tfds.features.FeaturesDict)
            and all(inner.np_dtype == np.dtype(bool) and inner.shape == () for inner in feature.values())]
  return next(iter([(name,) for name, inner in inside.items() if is_class(inner)] + of_objects + truths), ())


def _names(features, several_key):
  """The names of the classes at that path."""
  if not several_key:
    return ()
  feature = features[several_key[0]]
  if not hasattr(feature, 'feature'):
    return tuple(feature)
  return tuple((feature.feature[several_key[1]] if several_key[1:] else feature.feature).names)


def _inside(example, path):
  return functools.reduce(lambda inner, key: inner[key], path, example)


def _captions_key(features):
  """The path to a text of each picture, or to several of them, that is called caption, text or alike; () if none is."""
  is_text = lambda feature: getattr(feature, 'np_dtype', None) == np.dtype(object)
  for name in sorted(filter(caption_files.is_caption, features)):
    inner = getattr(features[name], 'feature', features[name])  # that of a Sequence
    if not hasattr(inner, 'items'):
      if is_text(inner):
        return (name,)
    elif texts := [key for key in inner if caption_files.is_caption(key) and is_text(inner[key])]:
      return name, texts[0]
  return ()


def _npy_cache(folder, name, make):
  """An array cached as .npy beside the data, or in the user's cache if that folder is not writable."""
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser() / 'vit_jax'
  places = [folder / f'vit_jax-{name}.npy',
            cache / f'{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}-{name}.npy']
  prepared = max((path.stat().st_mtime for path in folder.glob('*.json')), default=0.0)
  for path in places:
    if path.is_file() and path.stat().st_mtime >= prepared:  # an older file is of data that was prepared before
      return np.load(path)
  logging.info('Reading %s of %s; the result is cached', name, folder)
  array = make()
  for path in places:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      part = path.with_name(f'{path.name}.{os.getpid()}.part')
      with open(part, 'wb') as file:
        np.save(file, array)
      os.replace(part, path)
      break
    except OSError:
      continue
  return array
