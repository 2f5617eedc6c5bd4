"""Sources: random access to the splits of a data set, with one interface."""

import gzip
import importlib.util
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from etils import epath

from vit_jax import buckets, plugins
from vit_jax.data import array_sources, idx, listing
from vit_jax.data.array_sources import ArraySource, RandomSource
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError, nearest

PREPARED = ('emoji', 'icons', 'stamps', 'clipart')  # by `data.prepare`, from packages
WITH_CAPTIONS = 'pairs:DIR, emoji:LANGUAGE, icons, stamps, clipart, or tfds:NAME with captions'
KNOWN = ('digits', 'fashion_mnist', 'idx:DIR', 'folder:DIR', 'csv:FILE', 'pairs:DIR', 'tfds:NAME', *PREPARED, 'random')
DEBIAN_FASHION_MNIST = '/usr/share/datasets/fashion-mnist'
FASHION_CLASSES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag',
                   'Ankle boot')

_KINDS = {*(known.partition(':')[0] for known in KNOWN), 'arrays'}
_MOST_RANDOM = 10**9  # labels take 4 bytes each


class Source(Protocol):
  """One split of a data set.

  Attributes:
    name: the name of the data set in logs.
    class_names: the names of the classes.
    channels: the source's own, 1 or 3 (`random`: any).
    image_size: (height, width) if all pictures share it, else None.
    labels: int32 [N]; or, with several labels, uint8 [N, C] of 0 and 1.
    several_labels: whether a picture can have several labels, or none.
    images: uint8 [N,H,W,C] if the pictures fit in memory, else None.
    captions: N tuples of one text or more, or None.

  A source without classes has no class names, and all of its labels are 0.
  """

  name: str
  class_names: tuple[str, ...]
  channels: int
  image_size: tuple[int, int] | None
  labels: np.ndarray
  several_labels: bool
  images: np.ndarray | None
  captions: Sequence[tuple[str, ...]] | None

  def __len__(self) -> int:
    ...

  def read(self, i: int) -> bytes | np.ndarray:
    """Picture i: an encoded file, or uint8 [H,W,C]."""

  def where(self, i: int) -> str:
    """A name of picture i for messages: its path, or the split and record number."""

  def key(self, i: int) -> str:
    """Names picture i in the fingerprint of the data, wherever these lie: with the size of its file, if it has one."""


_NEEDED = (*Source.__annotations__, '__len__', 'read', 'where', 'key')


def open_sources(config: DataConfig, indexed: bool = True) -> dict[str, Source]:
  """Opens the splits of `config.source`: 'train', and 'val' and 'test' if they exist.

  Args:
    config: the data options.
    indexed: whether an index beside the data is used.

  Raises:
    UserError: the source is unknown, or its data is missing or malformed.
  """
  kind, _, rest = config.source.partition(':')
  data_dir = os.path.expanduser(config.data_dir) if config.data_dir else None
  _check_buckets(kind, {f'data.source={config.source}': rest, f'data.data_dir={data_dir}': data_dir or ''})
  if kind == 'csv' or kind == 'folder' and (rest or data_dir) and _in_a_table(config):
    return _with_tables(config)
  for name in ('label_columns', 'label_separator'):
    if (value := getattr(config, name)) is not None:
      raise UserError(f'data.{name}={value!r}: is for csv:FILE, or folder:DIR with a labels.csv, not for '
                      f'{config.source}; leave it out')
  if kind == 'digits' and not rest:
    return {'train': _digits()}
  if kind == 'fashion_mnist' and not rest:
    return _fashion_mnist(data_dir)
  if kind == 'random':
    return _random(config, rest)
  if kind == 'arrays':
    return array_sources.registered(config.source)
  if kind.partition('@')[0] in PREPARED:
    from vit_jax.data import prepared_pairs
    return prepared_pairs.open_prepared(config.source, data_dir)
  if kind == 'tfds' and rest:
    from vit_jax.data import tfds_source
    return tfds_source.open_tfds(rest.replace(':', '/', 1), data_dir, indexed)
  if kind in ('idx', 'folder', 'pairs'):
    if not rest and not data_dir:
      raise UserError(f'data.source: {config.source!r}; expected {kind}:DIR')
    folder = folder_of(config)
    if kind == 'idx':
      return idx.open_idx(folder, name=folder.name)
    from vit_jax.data import image_folder, pairs
    return (pairs.open_pairs if kind == 'pairs' else image_folder.open_folder)(folder, indexed)
  if opened := plug_in(config):
    return _checked(config, opened(config))
  near = nearest(config.source, KNOWN)
  raise UserError(f'data.source: no source {config.source!r}{near} (for a TFDS data set write tfds:{kind})')


def _check_buckets(kind, places):
  """Raises UserError for {what names it: place} in a bucket from which a kind of source is not read, or cannot be."""
  for what, place in places.items():
    if kind in buckets.SOURCES:
      buckets.check(place, what)
    elif buckets.is_bucket(place) and kind.partition('@')[0] in ('idx', 'fashion_mnist', *PREPARED):
      raise UserError(f'{what}: {kind} is read through the file system. Mount the bucket and give the folder; '
                      'vit_jax.sweep --launcher --data_dir does both')


def plug_in(config: DataConfig) -> Callable[[DataConfig], dict[str, Source]] | None:
  """The function of data.source=package.module:NAME, which opens the splits; None for a source of this package.

  Raises UserError as `plugins.find` does.
  """
  kind, _, name = config.source.partition(':')
  if kind.partition('@')[0] in _KINDS or not name.isidentifier() or not all(map(str.isidentifier, kind.split('.'))):
    return None
  if '.' not in kind and importlib.util.find_spec(kind) is None:  # a kind that is misspelt
    return None
  return plugins.find('data.source', config.source, {}, callable, 'a function of a vit_jax.data.config.DataConfig')


def _checked(config, opened):
  """The splits of a source from outside, if they are what `open_sources` returns."""
  if not isinstance(opened, dict) or not opened or not {*opened} <= {'train', 'val', 'test'}:
    raise UserError(f"data.source={config.source}: returned {opened!r:.80}; expected a dict of sources with the keys "
                    "'train', and perhaps 'val' and 'test'")
  for split, source in opened.items():
    if missing := [name for name in _NEEDED if not hasattr(source, name)]:
      raise UserError(f'data.source={config.source}: its {split} has no {missing[0]!r}; expected all of '
                      'vit_jax.data.sources.Source')
  return opened


def _in_a_table(config):
  from vit_jax.data import label_tables
  return label_tables.in_folder(folder_of(config))


def _with_tables(config):
  from vit_jax.data import label_tables
  if not config.source.partition(':')[2] and not config.data_dir:
    raise UserError(f'data.source: {config.source!r}; expected csv:FILE, a table of pictures and their classes')
  return label_tables.open_tables(folder_of(config), config.label_columns, config.label_separator)


def folder_of(config: DataConfig) -> pathlib.Path | epath.Path:
  """The place of folder:DIR, csv:FILE, pairs:DIR or idx:DIR, perhaps in a bucket; under data_dir unless absolute."""
  rest = config.source.partition(':')[2]
  if buckets.is_bucket(rest) or not config.data_dir:
    return listing.path(rest) if buckets.is_bucket(rest) else listing.path('', rest)
  return listing.path(os.path.expanduser(config.data_dir), rest)


def _digits():
  """Scikit-learn's 1,797 pictures of 8x8, with grey levels 0..16 scaled to 0..255.

  They are read from the file that scikit-learn ships, as importing scikit-learn itself takes seconds.
  """
  package = pathlib.Path(importlib.util.find_spec('sklearn').origin).parent
  with gzip.open(package / 'datasets' / 'data' / 'digits.csv.gz', 'rt') as file:
    table = np.loadtxt(file, delimiter=',', dtype=np.int32)
  images = np.round(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
  return ArraySource('digits', tuple('0123456789'), images, table[:, 64])


def _random(config, size):
  digits = size.replace('_', '') if re.fullmatch('[0-9]+(_[0-9]+)*', size) else ''
  if size and not 0 < int(digits[:20] or 0) <= _MOST_RANDOM:
    raise UserError(f'data.source={config.source!r}: expected random, or random:N for N training pictures, 1 to '
                    f'{_MOST_RANDOM:,}')
  train = int(digits) if size else 1_281_167  # as ImageNet
  classes = tuple(str(c) for c in range(config.num_classes or 1000))
  shape = (config.image_size or (224, 224), config.channels or 3)
  return {
    'train': RandomSource('random', classes, train, *shape, stream=0),
    'test': RandomSource('random', classes, min(50_000, max(1, train // 10)), *shape, stream=1),
  }


def _fashion_mnist(data_dir):
  """The IDX files in `data_dir` or of Debian's package if they exist, else TFDS's copy."""
  from vit_jax.data import tfds_source
  for folder in filter(None, (data_dir, DEBIAN_FASHION_MNIST)):
    if idx.is_idx_folder(folder):
      return idx.open_idx(pathlib.Path(folder), 'fashion_mnist', FASHION_CLASSES)
  try:
    return tfds_source.open_tfds('fashion_mnist', data_dir)
  except tfds_source.NotPrepared as error:
    raise UserError(
        f'fashion_mnist: neither the IDX files in {data_dir or DEBIAN_FASHION_MNIST} nor a prepared TFDS copy. '
        'Install them with `apt install dataset-fashion-mnist`, or prepare the copy with '
        f'`{tfds_source.prepare_command("fashion_mnist", data_dir)}`') from error
