import errno
import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies

from vit_jax import records
from vit_jax.errors import UserError


def test_rows_come_back(tmp_path):
  lines = records.Lines(tmp_path / 'run' / 'metrics.jsonl')
  rows = [{'step': i, 'loss': 0.1 * i} for i in range(3)]
  for row in rows:
    lines.append(row)
  assert records.read_rows(tmp_path / 'run' / 'metrics.jsonl') == rows  # before the file is closed


def test_an_incomplete_last_line_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  whole = b'{"step": 1}\n{"step": 2}\n'
  for cut in range(len(whole) + 1):
    path.write_bytes(whole[:cut])
    assert len(records.read_rows(path)) == whole[:cut].count(b'\n')


def test_rewind_moves_the_tail_to_another_file(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'step': 1})
  size = lines.size
  lines.append({'step': 2})
  lines.rewind(size)
  lines.append({'step': 3})
  lines.close()
  assert [row['step'] for row in records.read_rows(tmp_path / 'metrics.jsonl')] == [1, 3]
  assert [row['step'] for row in records.read_rows(tmp_path / 'metrics.discarded.jsonl')] == [2]


def test_a_tail_with_an_incomplete_line_is_kept(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n{"st')
  for _ in range(2):
    lines = records.Lines(path)
    lines.rewind(12)
    lines.close()
    with open(path, 'ab') as file:
      file.write(b'{"st')
  assert (tmp_path / 'metrics.discarded.jsonl').read_bytes() == b'{"st\n{"st\n'


def test_lost_lines_are_an_error(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  with pytest.raises(OSError, match='lines were lost'):
    lines.rewind(10)


def test_nan_is_written_as_null(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'loss': float('nan'), 'grad_norm': float('inf'), 'step': 1})
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text, parse_constant=pytest.fail) == {'loss': None, 'grad_norm': None, 'step': 1}


def test_events_have_the_time_and_run_json_is_replaced_atomically(tmp_path):
  events = records.Events(tmp_path / 'events.jsonl')
  events.append({'event': 'start'})
  assert records.read_rows(tmp_path / 'events.jsonl')[0]['time'] > 1.7e9
  assert records.read_run(tmp_path) is None
  for status in ('running', 'finished'):
    records.write_run(tmp_path, {'status': status})
    assert records.read_run(tmp_path) == {'status': status}
  assert sorted(p.name for p in tmp_path.iterdir()) == ['events.jsonl', 'run.json']


class _Full:
  """A file on a disk with 5 bytes left."""

  def __init__(self, file):
    self._file = file

  def write(self, content):
    if len(content) > 5:
      return self._file.write(content[:5])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_complete_lines(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'step': 1})
  room, lines._file = lines._file, _Full(lines._file)
  with pytest.raises(OSError, match='No space left'):
    lines.append({'step': 2, 'loss': 0})
  assert (tmp_path / 'metrics.jsonl').read_bytes() == b'{"step": 1}\n'
  lines._file = room
  lines.append({'step': 3})
  lines.close()
  assert [row['step'] for row in records.read_rows(tmp_path / 'metrics.jsonl')] == [1, 3]


def test_events_resume_after_an_incomplete_line(tmp_path):
  (tmp_path / 'events.jsonl').write_bytes(b'{"event": "start"}\n{"eve')
  events = records.Events(tmp_path / 'events.jsonl')
  events.append({'event': 'resume'})
  events.close()
  assert [row['event'] for row in records.read_rows(tmp_path / 'events.jsonl')] == ['start', 'resume']


def test_a_changed_log_is_detected(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'step': 1})
  size, crc32 = lines.size, lines.crc32
  lines.append({'step': 2})
  assert lines.changed(size, crc32) is None and lines.changed(lines.size, lines.crc32) is None
  again = records.Lines(tmp_path / 'metrics.jsonl')
  assert (again.size, again.crc32) == (lines.size, lines.crc32)
  content = bytearray((tmp_path / 'metrics.jsonl').read_bytes())
  content[9] ^= 1
  (tmp_path / 'metrics.jsonl').write_bytes(content)
  assert 'has changed' in lines.changed(size, crc32) and 'lines were lost' in lines.changed(1000, crc32)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner), max_leaves=8)
KEYS = strategies.sampled_from(['config', 'config_hash', 'status', 'params', 'data', 'results', 'lineage', 'other'])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=strategies.binary() | JSON.map(lambda v: json.dumps(v).encode())
       | strategies.dictionaries(KEYS, JSON).map(lambda v: json.dumps(v).encode()))
@example(b'[' * 100_000)
@example(b'{"params": ' + b'9' * 5000 + b'}')
@example(b'{"params": true}')
def test_any_run_json_is_refused_or_read(tmp_path, content):
  (tmp_path / 'run.json').write_bytes(content)
  try:
    run = records.read_run(tmp_path)
  except UserError as error:
    assert 'run.json' in str(error)
    return
  assert repr(run) == repr(json.loads(content)) and isinstance(run, dict)
  assert isinstance(run.get('config') or {}, dict) and isinstance(run.get('status') or '', str)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=strategies.lists(strategies.dictionaries(strategies.text(), JSON), max_size=4), data=strategies.data())
def test_a_log_cut_or_changed_anywhere_is_read_or_refused(tmp_path, rows, data):
  content = b''.join(json.dumps(row).encode() + b'\n' for row in rows)
  cut = content[:data.draw(strategies.integers(0, len(content)))]
  (tmp_path / 'metrics.jsonl').write_bytes(cut)
  assert repr(records.read_rows(tmp_path / 'metrics.jsonl')) == repr(rows[:cut.count(b'\n')])
  at = data.draw(strategies.integers(0, len(content)))
  (tmp_path / 'metrics.jsonl').write_bytes(content[:at] + data.draw(strategies.binary(max_size=3)) + content[at + 1:])
  try:
    assert all(isinstance(row, dict) for row in records.read_rows(tmp_path / 'metrics.jsonl'))
  except UserError as error:
    assert 'metrics.jsonl, line ' in str(error)
