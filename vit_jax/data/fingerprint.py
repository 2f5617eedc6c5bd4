"""The identity of a data set: a digest of which pictures a split has, so that a run notices other data in its place.

It covers the names and labels of all examples, the contents of pictures that are in memory, and of others the sizes of
the files and the contents of a sample. It does not cover where the data are: a copy has the same fingerprint. What it
cannot see is a change inside a file that keeps its size and is not in the sample. Of data with an index (`data.index`)
it is that of the time when the index was made.

Sizes are asked of the file system, which knows those of 50,000 files within a second or two once it has read them
(experiments/provenance). Where it takes longer there is a progress bar.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
from rich import progress

from vit_jax.console import Console
from vit_jax.data import pictures

SAMPLE = 64  # pictures whose contents count, evenly spaced, where they are not in memory
_DIGITS = 16
_PATIENCE_S = 2.0  # without a bar


def of(source, examples: np.ndarray, labels: np.ndarray) -> str:
  """16 hex digits of some examples of a `sources.Source`, in their order.

  Args:
    source: where they are read.
    examples: their positions in it, int [n].
    labels: their labels, int [n], or uint8 [n, C] of 0 and 1.
  """
  index = getattr(source, 'index', None)
  if index is not None and (known := index.fingerprint(examples)):
    return known
  hashed = hashlib.blake2b(digest_size=_DIGITS // 2)
  hashed.update(repr((len(examples), source.class_names)).encode())
  hashed.update(np.ascontiguousarray(labels, np.int64 if labels.ndim == 1 else np.uint8))
  if source.images is not None:
    whole = len(examples) == len(source) and np.array_equal(examples, np.arange(len(source)))
    hashed.update(np.ascontiguousarray(source.images if whole else source.images[examples]))
    return hashed.hexdigest()
  for i in _watched(examples, f'fingerprint of {source.name}: names and sizes'):
    hashed.update(source.key(int(i)).encode(errors='surrogateescape'))
  for i in examples[np.linspace(0, len(examples) - 1, min(SAMPLE, len(examples))).astype(int)]:
    hashed.update(_contents(source, int(i)))
  return hashed.hexdigest()


def with_text(pictures: str, captions: Iterable[tuple[str, ...]], tokenizer: str) -> str:
  """The fingerprint of examples with text, of that without, all captions, and the tokenizer's digest."""
  hashed = hashlib.blake2b(f'{pictures} {tokenizer}'.encode(), digest_size=_DIGITS // 2)
  for texts in captions:
    hashed.update(repr(texts).encode(errors='surrogatepass'))
  return hashed.hexdigest()


def _watched(items: np.ndarray, what: str) -> Iterator[int]:
  """The items, with a progress bar as soon as they take long; only the process that speaks to the user shows it."""
  begun, bar, task = time.monotonic(), None, None
  with contextlib.ExitStack() as stack:
    for done, item in enumerate(items):
      if bar is not None:
        bar.update(task, completed=done)
      elif time.monotonic() - begun > _PATIENCE_S and _speaks():
        columns = (progress.TextColumn('{task.description}', markup=False), progress.BarColumn(),
                   progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
        bar = stack.enter_context(progress.Progress(*columns, console=Console(stderr=True)))
        task = bar.add_task(what, total=len(items), completed=done)
      yield item
    if bar is not None:
      bar.update(task, completed=len(items))


def _speaks():
  from vit_jax.parallel import processes  # imports JAX
  return processes.is_writer()


def _contents(source, i):
  """The bytes of a picture, or what stands for one that cannot be read: a run may do without it."""
  try:
    content = source.read(i)
  except pictures.BadPicture:
    return b'unreadable'
  return content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
