"""A folder of compiled programs that outlives a run of the tests.

JAX keys each program by its text, the flags and its own version. XLA's CPU programs are also made for one processor,
and one with other instructions would crash on them: the folder is named after all that they depend on.
"""

import hashlib
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile

import jax

KEPT_BYTES = 2 << 30


def folder() -> tuple[pathlib.Path, bool]:
  """(where compiled programs go, whether it is to be removed after the run)."""
  place = home() / key(jax.__version__, os.environ.get('XLA_FLAGS', ''), processor())
  try:
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place):
      return place, False
  except OSError:
    return pathlib.Path(tempfile.mkdtemp(prefix='vit_jax-compiled-')), True


def home() -> pathlib.Path:
  """The folder of all of them, in the user's cache."""
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(cache) / 'vit_jax-tests'


def key(version: str, flags: str, processor: str) -> str:
  """A folder's name: jax-0.10.2-py3.11-0123456789ab."""
  digest = hashlib.sha256('\0'.join((flags, processor)).encode()).hexdigest()[:12]
  return f'jax-{version}-py{sys.version_info.major}.{sys.version_info.minor}-{digest}'


def processor() -> str:
  """The architecture, and on Linux the instructions that this processor has."""
  try:
    cpu = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    cpu = platform.processor()
  found = re.search(r'^(?:flags|Features)\s*:(.*)$', cpu, re.MULTILINE)
  return platform.machine() + (' '.join(sorted(found[1].split())) if found else cpu)


def prune(place: pathlib.Path, kept_bytes: int = KEPT_BYTES) -> None:
  """Removes the files that were used longest ago until the others take no more than `kept_bytes`."""
  used = []
  for path in place.rglob('*'):
    try:
      if path.is_file():
        stat = path.stat()
        used.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    except OSError:  # another run of the tests has just removed it
      continue
  total = sum(size for _, size, _ in used)
  for _, size, path in sorted(used, key=lambda file: file[0]):
    if total <= kept_bytes:
      break
    path.unlink(missing_ok=True)
    total -= size


def close(place: pathlib.Path, temporary: bool) -> None:
  """After the run: a temporary folder goes, of the others the oldest programs."""
  if temporary:
    shutil.rmtree(place, ignore_errors=True)
  else:
    prune(home())
