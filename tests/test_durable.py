"""Small files are written whole, and are on disk when the call returns."""

import errno
import os
import pathlib

import pytest

from vit_jax import durable, records


@pytest.mark.parametrize('content', ['text\n', b'\x00\xff'])
def test_the_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch, content):
  calls, sync, replace = [], os.fsync, os.replace

  def synced(descriptor):
    calls.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    sync(descriptor)

  def replaced(old, new):
    calls.append('renamed')
    replace(old, new)
  monkeypatch.setattr(os, 'fsync', synced)
  monkeypatch.setattr(os, 'replace', replaced)
  path = tmp_path / 'new' / 'law.json'
  durable.write(path, content)
  temporary, renamed, folder = calls
  assert pathlib.Path(temporary).name.startswith('law.json.') and renamed == 'renamed' and folder == str(path.parent)
  assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
  assert os.listdir(path.parent) == ['law.json']


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  records.write_run(tmp_path, {'status': 'running'})

  def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space'):
    records.write_run(tmp_path, {'status': 'finished'})
  assert records.read_run(tmp_path) == {'status': 'running'} and os.listdir(tmp_path) == [records.RUN]


def test_json_and_text_files_are_written_by_it_alone():
  """`write_text` and `json.dump` leave half a file after a crash."""
  root = pathlib.Path(durable.__file__).parent
  wrong = [path.name for path in root.rglob('*.py') if path.name not in ('durable.py', 'provenance.py')
           and ('.write_text(' in path.read_text() or 'json.dump(' in path.read_text())]
  assert not wrong, wrong


def test_a_terminal_is_reached_by_one_console_alone():
  root = pathlib.Path(durable.__file__).parent
  wrong = [path.name for path in root.rglob('*.py') if path.name != 'console.py'
           and 'from rich.console import' in path.read_text()]
  assert not wrong, wrong
