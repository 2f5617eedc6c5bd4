import json

import pytest

from vit_jax import records


def test_rows_come_back(tmp_path):
  lines = records.Lines(tmp_path / 'run' / 'metrics.jsonl')
  rows = [{'step': i, 'loss': 0.1 * i} for i in range(3)]
  for row in rows:
    lines.append(row)
  assert records.read_rows(tmp_path / 'run' / 'metrics.jsonl') == rows  # before it is closed


def test_half_a_last_line_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  whole = b'{"step": 1}\n{"step": 2}\n'
  for cut in range(len(whole) + 1):
    path.write_bytes(whole[:cut])
    assert len(records.read_rows(path)) == whole[:cut].count(b'\n')


def test_rewind_keeps_the_tail_elsewhere(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'step': 1})
  size = lines.size
  lines.append({'step': 2})
  lines.rewind(size)
  lines.append({'step': 3})
  lines.close()
  assert [row['step'] for row in records.read_rows(tmp_path / 'metrics.jsonl')] == [1, 3]
  assert [row['step'] for row in records.read_rows(tmp_path / 'metrics.discarded.jsonl')] == [2]


def test_a_tail_cut_off_in_a_line_is_kept_as_a_line(tmp_path):
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


def test_a_number_that_is_none_is_null(tmp_path):
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  lines.append({'loss': float('nan'), 'grad_norm': float('inf'), 'step': 1})
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text, parse_constant=pytest.fail) == {'loss': None, 'grad_norm': None, 'step': 1}


def test_events_carry_the_time_and_run_json_is_replaced_whole(tmp_path):
  events = records.Events(tmp_path / 'events.jsonl')
  events.append({'event': 'start'})
  assert records.read_rows(tmp_path / 'events.jsonl')[0]['time'] > 1.7e9
  assert records.read_run(tmp_path) is None
  for status in ('running', 'finished'):
    records.write_run(tmp_path, {'status': status})
    assert records.read_run(tmp_path) == {'status': status}
  assert sorted(p.name for p in tmp_path.iterdir()) == ['events.jsonl', 'run.json']
