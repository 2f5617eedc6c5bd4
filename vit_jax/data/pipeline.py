"""The data of a run, composed of sources, splits, order, transforms and text.

  data = open_data(config.data)
  batches = data.train_batches(seed=0, first_step=0, num_steps=1000)
  for batch in batches: ...    # dict(image uint8 [b,H,W,C], label int32 [b], weight float32 [b])
                               # with several labels a picture, label is uint8 [b,C] of 0 and 1
                               # and text int32 [b, length] from open_data(config.data).reading(['image', 'text'])
  batches.close()

To resume, only `first_step` is needed. With several processes, each passes `rows`, its rows of the global batch.
"""

import copy
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data import fingerprint, host_augment, splits
from vit_jax.data import sources as sources_lib
from vit_jax.data import text as text_lib
from vit_jax.data.batches import ChunkReader, MemoryBatches, RecordBatches, TextBatches
from vit_jax.data.config import DataConfig, check, check_pictures
from vit_jax.data.order import EvalOrder, LeftOut, TrainOrder
from vit_jax.errors import UserError
from vit_jax.printable import printable, say

SPLITS = ('train', 'val', 'test')
Batches = MemoryBatches | RecordBatches | TextBatches
_IN_MEMORY_BYTES = 2**31  # of pictures at their final size


class Data:
  """The data of a run; see `open_data`.

  Attributes:
    config: the DataConfig.
    name: the name of the data set in logs.
    class_names: the names of the classes.
    num_classes: the number of classes.
    several_labels: whether a picture can have several labels, or none.
    image_shape: (H, W, C) of the batches.
    unique_examples: the size of the training subset.
  """

  def __init__(self, config: DataConfig, parts: dict[str, splits.Part], image_shape: tuple[int, int, int]):
    source = (parts.get('train') or next(iter(parts.values()))).source
    self.config, self.image_shape = config, image_shape
    self.name, self.class_names = source.name, source.class_names
    self.num_classes, self.several_labels = len(source.class_names), source.several_labels
    self.unique_examples = len(parts['train'].examples) if 'train' in parts else 0
    self._parts, self._arrays, self._fingerprints, self._texts, self._reads_text = parts, {}, {}, {}, ()

  def reading(self, entries: Iterable[str]) -> 'Data':
    """These data for an objective that reads these entries of a batch: with those of `text.ENTRIES` among them.

    What was read and computed is shared.

    Raises:
      UserError: the source has no captions, or its tokenizer cannot be made.
    """
    out = copy.copy(self)
    out._reads_text = tuple(name for name in text_lib.ENTRIES if name in entries)
    if out._reads_text:
      if next(iter(self._parts.values())).source.captions is None:
        raise UserError(f'data.source={self.config.source}: has no captions, and the objective reads text; expected '
                        f'{sources_lib.WITH_CAPTIONS}')
      _ = self.tokenizer
    return out

  def check_entries(self, entries: Mapping[str, Any]) -> None:
    """Raises UserError where an objective reads one label and there can be several, or the reverse.

    `entries` are the `ShapeDtypeStruct`s that it reads.
    """
    shape = (self.num_classes,) if self.several_labels else ()
    if 'label' in entries and entries['label'].shape != shape:
      raise UserError(f"data.source={self.config.source}: the 'label' of a picture has the shape {shape}, and the "
                      f"objective reads {entries['label'].shape}: it is for {'one' if shape else 'several'} a picture")

  @property
  def tokenizer(self) -> text_lib.Tokenizer:
    """What makes tokens of texts. Raises UserError if it cannot be made."""
    if 'tokenizer' not in self._texts:
      self._texts['tokenizer'] = text_lib.tokenizer(self.config.text, self._to_learn_from)
    return self._texts['tokenizer']

  def _to_learn_from(self):
    """The captions of all training pictures, also of those that a smaller subset leaves out."""
    source, held_out = self._part('train').source, [self._part(split) for split in ('val', 'test')]
    left = np.ones(len(source), bool)
    for part in held_out:
      if part.source is source:
        left[part.examples] = False
    return [text for i in np.flatnonzero(left) for text in source.captions[i]]

  def captions(self, split: str) -> list[tuple[str, ...]] | None:
    """The captions of each picture of a split, in the order of `eval_batches`; None if the source has none."""
    return self._part(split).captions

  def cut_off(self, split: str) -> tuple[int, int]:
    """(how many captions of a split are longer than `data.text.length`, how many there are); 0, 0 if none is read."""
    return (self._captions(split).cut, self._captions(split).count) if self._reads_text else (0, 0)

  def seen(self, split: str) -> np.ndarray:
    """Whether the first caption of each picture of a split is one that a training picture has, bool [n].

    It tells names that were seen in training from those that never were.
    """
    known = {text for texts in self.captions('train') for text in texts}
    return np.array([texts[0] in known for texts in self.captions(split)], bool)
  def size(self, split: str) -> int:
    """The number of examples in 'train' (the subset), 'val' or 'test'."""
    return len(self._part(split).examples)

  def balanced(self, split: str, count: int) -> str:
    """The name of a class-balanced part of a split, for the methods that take a split: at most `count` examples."""
    name, part = f'{split}, {count}', self._part(split)
    if count >= len(part.examples):
      return split
    self._parts.setdefault(name, splits.balanced(part, count))
    return name

  def labels(self, split: str) -> np.ndarray:
    """The labels of a split, int32 [n] or with several a picture uint8 [n, C], in the order of `eval_batches`."""
    return self._part(split).labels

  def where(self, split: str, place: int) -> str:
    """A name for messages of the example that `eval_batches` returns at `place`, such as its path."""
    part = self._part(split)
    return part.source.where(int(part.examples[place]))

  def fingerprint(self, split: str) -> str:
    """16 hex digits of the pictures and labels of a split (`data.fingerprint`), and of its text if that is read."""
    if split not in self._fingerprints:
      part = self._part(split)
      self._fingerprints[split] = fingerprint.of(part.source, part.examples, part.labels)
    if not self._reads_text:
      return self._fingerprints[split]
    return fingerprint.with_text(self._fingerprints[split], self.captions(split), self.tokenizer.digest)

  def arrays(self, split: str) -> dict[str, np.ndarray] | None:
    """{'image': uint8 [n,H,W,C], 'label': int32 [n]} of a split if it can be kept in memory, else None.

    It can if its source is in memory and no random transform runs on the host. Positions of `TrainOrder` index it.
    With the entries of text that are read; then there must be one caption for each training picture.
    """
    arrays = self._arrays_after(split, self._transforms(split))
    if arrays is None or not self._reads_text:
      return arrays
    texts = self._captions(split)
    if split == 'train' and texts.several:
      return None
    every = texts(np.arange(self.size(split)))
    return arrays | {name: every[name] for name in self._reads_text}

  def train_order(self, seed: int, left_out: Sequence[int] = ()) -> TrainOrder | LeftOut:
    """The order of the examples of the training subset; `left_out` numbers batches, from 1, that are left out."""
    order = TrainOrder(self.unique_examples, self.config.batch_size, seed, self.config.augment.repeats)
    return LeftOut(order, left_out) if left_out else order

  def train_batches(self, seed: int, first_step: int, num_steps: int, rows: slice | np.ndarray | None = None,
                    workers: int = 0, left_out: Sequence[int] = ()) -> Batches:
    """The training batches first_step, first_step + 1, ...; each is a pure function of (seed, step, left_out).

    Args:
      seed: determines the order, the random transforms on the host, and which caption of a picture is read.
      first_step: the step of the first batch; 0, or where a run resumes.
      num_steps: the number of batches.
      rows: this process's rows of the global batch, as an index; None for all.
      workers: the number of processes that read and decode; 0 for threads of this process.
      left_out: batches of the order, numbered from 1, that are left out.

    Returns:
      A closable iterator. Its `take_errors()` returns messages on bad records since the last call.

    Raises:
      UserError: by the iterator, if a record cannot be read and on_error='stop'.
    """
    steps = range(first_step, first_step + num_steps)
    order = self.train_order(seed, left_out)
    return self._batches('train', order, steps, rows, seed, workers, self._transforms('train'))

  def eval_batches(self, split: str, batch_size: int | None = None, rows: slice | np.ndarray | None = None,
                   workers: int = 0, frame: host_augment.ResizeCenterCrop | None = None) -> Batches:
    """All examples of a split, each once, in a fixed order. The last batch is padded with rows of weight 0.

    Every process gets the same number of batches. For 'train', this is the training subset without the host's random
    transforms. Of several captions of a picture it is the first.

    Args:
      split: 'train', 'val' or 'test'.
      batch_size: examples per batch; None: that of training.
      rows: this process's rows of the global batch, as an index; None for all.
      workers: the number of processes that read and decode; 0 for threads of this process.
      frame: crops and resizes pictures to `image_shape`; None: as in the config.
    """
    order = EvalOrder(self.size(split), batch_size or self.config.batch_size)
    return self._batches(split, order, range(order.num_steps), rows, None, workers,
                         (frame,) if frame else self._transforms(split, evaluate=True))

  def _part(self, split):
    if split not in self._parts:
      raise UserError(f'split {split!r}: expected one of {", ".join(s for s in SPLITS if s in self._parts)}')
    return self._parts[split]

  def _transforms(self, split, evaluate=False):
    c, shape = self.config, (self.image_shape[:2], self.image_shape[2])
    if split == 'train' and not evaluate:
      return host_augment.train_transforms(c.augment, *shape, c.interpolation or 'bilinear', tuple(c.mean or (0.5,)))
    return host_augment.eval_transforms(c.augment, *shape, c.interpolation or 'bilinear')

  def _arrays_after(self, split, steps):
    if (split, steps) not in self._arrays:
      self._arrays[split, steps] = self._load(self._part(split), steps)
    return self._arrays[split, steps]

  def _load(self, part, steps):
    source = part.source
    too_big = len(part.examples) * math.prod(self.image_shape) > _IN_MEMORY_BYTES
    if too_big or any(step.random for step in steps) or source.images is None:
      return None
    if source.images.shape[1:] == self.image_shape and getattr(steps[0], 'ratio', 1.0) == 1.0:
      whole = len(part.examples) == len(source)
      images = source.images if whole else source.images[part.examples]
    else:
      images = np.stack([steps[0](source.images[i], None) for i in part.examples]
                        or [np.zeros(self.image_shape, np.uint8)])[:len(part.examples)]
    return {'image': images, **{name: array[part.examples] for name, array in part.fields.items()}}

  def _batches(self, split, order, steps, rows, seed, workers, host):
    rows = np.arange(order.batch_size)[slice(None) if rows is None else rows]
    if not len(rows):
      raise UserError(f'none of the {order.batch_size} rows of a batch: expected at least one')
    arrays = self._arrays_after(split, host)
    if arrays is not None:
      batches = MemoryBatches(arrays, order, steps, rows)
    else:
      reader = ChunkReader(self._part(split), order, host, self.image_shape, seed, steps.start, rows)
      batches = RecordBatches(reader, len(steps), workers, self.config.on_error)
    if not self._reads_text:
      return batches
    return TextBatches(batches, self._captions(split), self._reads_text, order, steps, rows, seed)

  def _captions(self, split):
    if split not in self._texts:
      self._texts[split] = text_lib.Captions(self.captions(split), self.tokenizer)
    return self._texts[split]


def train_examples(config: DataConfig) -> int:
  """The size of the training subset, without a look at the pictures: their size may not be known yet."""
  check(config)
  parts = splits.assign(_to_train(config), config.val_examples, config.unique_examples)
  return len(parts['train'].examples)


def _to_train(config):
  sources = sources_lib.open_sources(config)
  if 'train' not in sources:
    raise UserError(f'{config.source}: has {", ".join(sources)}, but no train; expected pictures to train on. '
                    '--evaluate scores a model on it')
  return sources


def open_data(config: DataConfig, to_train: bool = True) -> Data:
  """Opens the data of a run. Errors in it are raised here, before anything is compiled.

  Args:
    config: the data options.
    to_train: whether there must be training pictures; otherwise, data with only a test or val split will do.

  Raises:
    UserError: an option is out of range, data is missing or malformed, or classes or sizes do not match.
  """
  check(config)
  sources = _to_train(config) if to_train else sources_lib.open_sources(config)
  train = sources.get('train') or next(iter(sources.values()))
  classes = len(train.class_names)
  if config.num_classes not in (None, classes):
    raise UserError(f'data.num_classes: {config.num_classes}, but {train.name} has {classes} classes')
  image_size = config.image_size or _own_size(config, sources)
  channels = config.channels or train.channels
  check_pictures(config, image_size, channels)
  _check_readable(sources, config.on_error)
  if 'train' not in sources:
    return Data(config, {split: splits.whole(source) for split, source in sources.items()}, (*image_size, channels))
  parts = splits.assign(sources, config.val_examples, config.unique_examples)
  if not len(parts['train'].examples):
    raise UserError(f'{train.name}: no example is left for training after {len(parts["test"].examples):,} for test')
  return Data(config, parts, (*image_size, channels))


def _check_readable(sources, on_error):
  """Raises UserError for pictures that would end the run later; only sources that look at their files know any."""
  bad = [error for source in sources.values() for error in getattr(source, 'unreadable', tuple)()]
  if bad and on_error == 'skip':
    say(f'{len(bad):,} pictures cannot be read and are left out, such as {printable(bad[0])}', sys.stderr)
  elif bad:
    raise UserError(f'cannot read {bad[0]}{f" and {len(bad) - 1:,} others" if len(bad) > 1 else ""}; remove '
                    f'{"them" if len(bad) > 1 else "it"}, or set data.on_error to "skip"')


def _own_size(config, sources):
  sizes = {source.image_size for source in sources.values()}
  if len(sizes) == 1 and None not in sizes:
    return sizes.pop()
  raise UserError(f'data.image_size: not set, and the pictures of {config.source} are not all of one size; '
                  'set it, for example to 224')
