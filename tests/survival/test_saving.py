import pytest

from vit_jax.survival import saving
from vit_jax.training.config import SystemConfig


class Disk:
  """Fake checkpoints whose saves take as long as the test says."""
  busy = False

  def saving(self):
    return self.busy


def _saving(disk, patience=0, branch_steps=(), **system):
  system = SystemConfig(**system)
  when = saving.Due(branch_steps, system.keep_every, system.save_every, system.save_minutes, log_every=50,
                    evaluations=patience > 0)
  return saving.Saving(when, disk)


def _saved(made, steps, evaluated=()):
  out = []
  for step in steps:
    if made.due(step, step in evaluated):
      out.append(step)
      made.done()
  return out


def test_by_steps():
  assert _saved(_saving(Disk(), save_every=4), range(1, 13)) == [4, 8, 12]


def test_by_evaluations_without_an_interval():
  assert _saved(_saving(Disk()), range(1, 13), evaluated=(5, 10)) == [5, 10]
  assert _saved(_saving(Disk(), save_every=4), range(1, 13), evaluated=(5, 10)) == [4, 8, 12]
  assert _saved(_saving(Disk(), patience=1, save_every=4), range(1, 13), evaluated=(5, 10)) == [4, 5, 8, 10, 12]


def test_required_steps_are_saved_even_if_the_disk_is_busy():
  disk = Disk()
  made = _saving(disk, branch_steps=(3,), keep_every=5, save_every=1000)
  disk.busy = True
  assert _saved(made, range(1, 12)) == [3, 5, 10]


def test_a_save_by_interval_waits_for_the_previous_save():
  disk = Disk()
  made = _saving(disk, save_every=2)
  assert _saved(made, [1, 2]) == [2]
  disk.busy = True
  assert _saved(made, [3, 4, 5, 6]) == []
  disk.busy = False
  assert _saved(made, [7, 8]) == [7, 8]


def test_by_the_clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(saving.time, 'monotonic', lambda: now[0])
  made, out = _saving(Disk(), save_every=100, save_minutes=2), []
  for step in range(1, 31):
    now[0] += 10
    out += _saved(made, [step])
  assert out == [12, 24]
  assert _saved(_saving(Disk(), save_every=100, save_minutes=0), [99]) == []


def test_a_failed_save_raises_at_the_next_step():
  disk = Disk()
  made = _saving(disk, save_every=2)
  assert _saved(made, [1, 2]) == [2]

  def fail():
    raise OSError('no space')

  disk.saving = fail
  with pytest.raises(OSError, match='no space'):
    made.due(3, False)
