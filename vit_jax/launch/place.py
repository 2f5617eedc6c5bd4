"""Where the data of a sweep are on a cluster: --data_dir of `vit_jax.sweep --launcher`, as a folder that all hosts see.

  gs://BUCKET/FOLDER   a Cloud Storage bucket, mounted at /data
  s3://BUCKET/FOLDER   an S3 bucket, mounted at /data (SkyPilot)
  pvc:CLAIM/FOLDER     a Kubernetes persistent volume claim, mounted at /data (JobSet)
  host:/FOLDER         a folder of every machine, such as a mount of its own
  image:/FOLDER        a folder of the container image
  /FOLDER              a folder of this machine, which SkyPilot copies to every host; with JobSet, host:/FOLDER
"""

import dataclasses
import os
import re

from vit_jax import buckets
from vit_jax.errors import UserError

MOUNT = '/data'
_NEEDED = 'gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, pvc:CLAIM/FOLDER, host:/FOLDER or image:/FOLDER'
_NO_DATA = ('digits', 'random')  # sources that come with the code
_WITH_PATHS = (*buckets.SOURCES, 'idx')


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the data are.

  Attributes:
    kind: 'gs', 's3', 'pvc', 'host', 'image' or 'here'.
    name: of the bucket or the claim; '' for the others.
    path: the folder inside it, without slashes at its ends; of 'host', 'image' and 'here' the absolute path.
  """
  kind: str
  name: str
  path: str

  @property
  def mount(self) -> str:
    """The folder at which hosts see it: the root of the bucket or volume, or the path itself."""
    return self.path if self.kind in ('host', 'image') else MOUNT

  @property
  def folder(self) -> str:
    """The value of data.data_dir on the hosts."""
    return f'{MOUNT}/{self.path}' if self.name and self.path else self.mount

  def __str__(self):
    if self.kind in ('gs', 's3'):
      return f'{self.kind}://{self.name}/{self.path}'.rstrip('/')
    if self.kind == 'here':
      return self.path
    return f'{self.kind}:{self.name}{"/" if self.name and self.path else ""}{self.path}'


def parse(text: str, flag: str = '--data_dir') -> Place:
  """The place that a text names; raises UserError, which says what would be right."""
  if re.match('(gs|s3)://', text):
    bucket, _, path = check_bucket(text, flag).partition('://')[2].partition('/')
    return Place(text[:2], bucket, path.strip('/'))
  kind, colon, rest = text.partition(':')
  if colon and kind == 'pvc':
    claim, _, path = rest.partition('/')
    if not re.fullmatch('[a-z0-9]([a-z0-9.-]*[a-z0-9])?', claim, re.ASCII):
      raise UserError(f'{flag}={text}: expected pvc:CLAIM/FOLDER, where CLAIM is the name of a PersistentVolumeClaim '
                      'in the namespace of the runs: lower-case letters, digits, hyphens')
    return Place(kind, claim, _clean(path, text, flag).strip('/'))
  if not colon:
    kind, rest = 'here', text
  if kind in ('host', 'image', 'here') and rest.startswith('/') and rest.strip('/'):
    return Place(kind, '', _clean(rest, text, flag).rstrip('/'))
  raise UserError(f'{flag}={text}: expected {_NEEDED}, or an absolute path')


def check_bucket(text: str, flag: str, schemes: tuple[str, ...] = ('gs', 's3')) -> str:
  """The path in a bucket, checked without a network; raises UserError that says which part is wrong, and why."""
  match = re.fullmatch(r'([a-z0-9]+)://([^/]*)(/.*)?', text, re.DOTALL)
  examples = ' or '.join(f'{scheme}://my-bucket/FOLDER' for scheme in schemes)
  if not match or match[1] not in schemes:
    raise UserError(f'{flag}={text}: expected a path in a bucket that all hosts can reach, such as {examples}')
  if not re.fullmatch('[a-z0-9]([a-z0-9._-]{1,220}[a-z0-9])', match[2], re.ASCII):
    hint = ' (replace the name in capitals by that of your bucket)' if match[2].isupper() else ''
    raise UserError(f'{flag}={text}: {match[2]!r} is no name of a bucket{hint}: 3 characters or more, of lower-case '
                    f'letters, digits, hyphens, dots and underscores, as in {examples}')
  _clean((match[3] or '').removeprefix('/'), text, flag)
  return text


def _clean(path, text, flag):
  """The path, where it means the same to a shell, to kubectl and to a bucket."""
  parts = path.strip('/').split('/')
  if path and not all(re.fullmatch(r'[\w.=+@,-]+', part, re.ASCII) and part not in ('.', '..') for part in parts):
    raise UserError(f'{flag}={text}: expected folders of letters, digits and any of ._-=+@, between single slashes')
  return path


def data_dir(source: str, given: str | None, place: Place | None) -> str | None:
  """The value that data.data_dir must have for a run on the cluster; None: as it is.

  Args:
    source: data.source of the run.
    given: its own data.data_dir.
    place: where the data are; None: nowhere.

  Raises:
    UserError: no host would find the data of the run.
  """
  kind, _, rest = source.partition(':')
  if kind in _NO_DATA or kind in buckets.SOURCES and rest.startswith('gs://'):  # read without a mount
    return None
  wanted = f'data.source={source}'
  if place is None:
    raise UserError(f'{wanted}: no data reach the hosts.{_near(given or rest)}')
  if kind in _WITH_PATHS and '://' in rest:
    raise UserError(f'{wanted}: the hosts do not reach it. Write {kind}:FOLDER, which is looked up in --data_dir')
  if kind in _WITH_PATHS and rest.startswith(('/', '~')):
    if rest.rstrip('/') == place.mount or rest.startswith(f'{place.mount}/'):
      return None
    raise UserError(f'{wanted}: the hosts see {place} at {place.mount}, and {rest} is not in it. Write {kind}:'
                    f'{rest.rstrip("/").rpartition("/")[2] or "FOLDER"}, which is looked up in --data_dir')
  return place.folder


def found_from(source: str, place: Place | None, in_image: bool = False) -> bool:
  """Whether this machine can read a run's data at a place of the cluster, without its mounts.

  Args:
    source: data.source of the run.
    place: where the data are; None: nowhere.
    in_image: whether the run is tried in a container of its image.
  """
  kind = source.partition(':')[0]
  if place is None or kind in _NO_DATA:
    return True
  if place.kind in ('gs', 's3'):
    return kind in buckets.SOURCES
  return in_image if place.kind == 'image' else place.kind != 'pvc' and os.path.isdir(place.path)


def _near(place):
  """How a place that a run names itself is made to reach the hosts."""
  if '://' in place:
    return f' --data_dir={parse(place, "data.data_dir")} mounts the bucket'
  missing = f' The hosts do not have {place} of this machine.' if place.startswith('/') else ''
  return f'{missing} Say where the data are: --data_dir={_NEEDED}'


def check_file(key: str, path: str | None, place: Place | None) -> None:
  """Raises UserError for weights that no host can read: on this machine, or in a store that keeps no run folders.

  Args:
    key: the config key that names it.
    path: its value.
    place: where the data are, which may hold it too.
  """
  buckets.check_run(path or '', f'{key}={path}')
  if not path or not path.startswith(('/', '~', '.', 'runs/')) or (place and path.startswith(f'{place.mount}/')):
    return
  raise UserError(f'{key}={path}: a path of this machine, which the hosts do not have. Copy it into a bucket and give '
                  f'gs://my-bucket/FOLDER')
