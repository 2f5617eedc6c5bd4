"""The local tier: more frequent checkpoints in this machine's memory or on its disk, against the loss of processes.

If all processes of a run are killed, at most `local_every` steps are lost, plus those during a save; or at most the
time `local_seconds`, as long as a save takes less than half of it. If the machine crashes, its memory is lost: the run
resumes from the checkpoints in the run folder, which are saved as without a local tier. It does so too if a checkpoint
there was unfinished that is needed later (`Due.needed`).
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from vit_jax.errors import UserError
from vit_jax.options import option
from vit_jax.parallel import processes
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.survival import full_disk
from vit_jax.survival.local_checkpoints import LocalCheckpoints
from vit_jax.survival.saving import Due, Saving


@dataclasses.dataclass(frozen=True)
class LocalConfig:
  """Where and how often to save on this machine, in addition to the run folder."""
  local_dir: str | None = None  # a folder in memory or on a local disk, such as /dev/shm; None: no local tier
  local_every: int | None = option(None, hint='None or 0: by the clock alone')  # steps between local saves
  # The most time that may be lost; saved twice as often. Several processes look at the clock when a row is logged.
  local_seconds: float | None = option(30.0, hint='None or 0: by steps alone')


def check(config: LocalConfig) -> None:
  """Raises UserError for a bucket path."""
  if config.local_dir and '://' in config.local_dir:
    raise UserError(f'system.local_dir={config.local_dir}: must be a folder on this machine, such as /dev/shm')


class LocalTier:
  """The local checkpoints of a run, of which each process saves those parts of the arrays that its devices hold.

  They belong to one config, run folder and layout of processes and devices, and are found by no other run. Where they
  cannot be written, for example because the disk is full, a note is printed and the run continues without them.

  Attributes:
    checkpoints: those of this process; None: there is no local tier.
    steps: those of which every process has a checkpoint, in ascending order; as they were when the run began.
  """

  def __init__(self, config: LocalConfig, config_hash: str, workdir: os.PathLike, mesh: LogicalMesh, log_every: int,
               begins: bool, note: Callable[[str], None]):
    """Opens the tier of a run. All processes must come here.

    Args:
      config: where and how often to save.
      config_hash: the identity of the run.
      workdir: its folder.
      mesh: its devices.
      log_every: steps between rows of the log.
      begins: whether the run folder is new; what an earlier one of the same name has left is then deleted.
      note: prints a line.
    """
    self.steps, self.checkpoints = [], None
    self._config, self._note = config, note
    if not config.local_dir:
      return
    place = os.fspath(workdir) if '://' in os.fspath(workdir) else os.path.abspath(workdir)
    layout = zlib.crc32(str([dict(mesh.shape), [(d.process_index, d.id) for d in mesh.devices.flat]]).encode())
    name = f'vit_jax-{config_hash}-{hashlib.sha256(place.encode()).hexdigest()[:12]}'
    self._base = Path(config.local_dir).absolute() / name
    self._folder = self._base / f'{layout:08x}' / f'{jax.process_index()}-of-{jax.process_count()}'
    if self._failed(_fault_of(lambda: self._open(begins))):
      return
    when = Due((), None, config.local_every, (config.local_seconds or 0) / 2 / 60, log_every, evaluations=False)
    self._saving = Saving(when, self.checkpoints)
    everyone = [set(json.loads(steps)) for steps in processes.all_say(json.dumps(self.checkpoints.steps()))]
    self.steps = sorted(set.intersection(*everyone))
    if any(everyone) and not self.steps:
      note(f'{self._base}: ignored, as the {len(everyone)} processes have no local checkpoint of the same step')

  def _open(self, begins):
    stale = [folder for folder in self._base.glob('*') if folder != self._folder.parent]
    if stale and not begins:
      self._note(f'{self._base}: local checkpoints of other processes or devices are ignored and deleted')
    for folder in stale + begins * [self._folder]:
      shutil.rmtree(folder, ignore_errors=True)
    self.checkpoints = LocalCheckpoints(self._folder)

  def forget_after(self, step: int) -> None:
    """Deletes the checkpoints after a step from which the run resumes."""
    if self.checkpoints is not None:
      for later in (saved for saved in self.checkpoints.steps() if saved > step):
        shutil.rmtree(self._folder / str(later), ignore_errors=True)

  def due(self, step: int) -> bool:
    """Whether to save after `step`; the same answer on all processes, which must all come here."""
    if self.checkpoints is None:
      return False
    answer = [False]
    if fault := _fault_of(lambda: answer.append(self._saving.due(step, False))):  # of the save before
      self._failed(fault)
    return answer[-1]

  def save(self, step: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
    """Starts a save, when every process has finished the save before."""
    start = lambda: self.checkpoints.save(step, tree, record)
    if not (self._failed(_fault_of(self.checkpoints.wait)) or self._failed(_fault_of(start))):
      self._saving.done()

  def _failed(self, fault):
    """Whether a process has a fault; all go on without a local tier then."""
    faults = [said for said in processes.all_say(fault) if said]
    if faults:
      self._note(f'system.local_dir={self._config.local_dir} cannot be used: {faults[0]}. The run goes on without a '
                 'local tier; checkpoints in the run folder are saved as usual')
      self.remove()
    return bool(faults)

  def remove(self) -> None:
    """Deletes this process's checkpoints: the run has finished, or goes on without them."""
    if self._config.local_dir:
      self.close()
      shutil.rmtree(self._folder, ignore_errors=True)
      with contextlib.suppress(OSError):  # another process is still there
        self._folder.parent.rmdir()
        self._base.rmdir()

  def close(self) -> None:
    """Waits until all is saved."""
    if self.checkpoints is not None:
      _fault_of(self.checkpoints.wait)
      self.checkpoints = None


def _fault_of(act):
  """What went wrong, '' if nothing. Errors of the devices are passed on, since they are the run's own."""
  try:
    act()
  except jax.errors.JaxRuntimeError:
    raise
  except Exception as error:  # of any kind: the run does not depend on it
    return 'it is full' if full_disk.is_full(error) else ' '.join(str(error).split())[:150] or type(error).__name__
  return ''
