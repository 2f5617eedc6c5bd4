"""Tables and logs with arbitrary contents: either a UserError or the right numbers."""

import json
import sys

import numpy as np
from hypothesis import HealthCheck, example, given, settings, strategies

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.scaling.points import load

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner), max_leaves=6)
NUMBERS = strategies.floats(1e-300, 1e300) | strategies.integers(1, 10**18)
JUNK = strategies.sampled_from(
    ['', 'nan', '-inf', '1e999', '1_000', '0x10', '12,5', '-3', '0', 'true', '٣', '1e', '1 2'])


def _points(paths):
  """The points that a law would read; None if the input is refused."""
  try:
    points = load(paths)
  except UserError as error:
    assert str(error)
    return None
  values = np.concatenate([points.y, *points.columns.values()])
  assert len(points) and np.all(np.isfinite(values)) and np.all(values > 0)
  return points


@quick
@given(content=strategies.binary() | strategies.text().map(str.encode),
       suffix=strategies.sampled_from(['.csv', '.tsv', '.json', '.jsonl']))
@example(b'params,loss\n\0,1\n', '.csv')
@example(b'loss\n"', '.csv')
@example(b'[' * 100_000, '.json')
@example(b'{"loss": ' + b'9' * 5000 + b'}\n{}\n', '.jsonl')
def test_any_bytes(tmp_path, content, suffix):
  path = tmp_path / f'table{suffix}'
  path.write_bytes(content)
  _points([path])


@quick
@given(rows=strategies.lists(strategies.tuples(NUMBERS.map(repr) | JUNK, NUMBERS.map(repr) | JUNK), max_size=6))
def test_a_csv_table_gives_the_rows_that_are_numbers(tmp_path, rows):
  path = tmp_path / 'table.csv'
  path.write_text('params,loss\n' + ''.join(f'"{n}","{loss}"\n' for n, loss in rows))
  junk = set(JUNK.elements)
  right = dict.fromkeys((n, loss) for n, loss in rows if n not in junk or loss not in junk)
  good = [float(loss) for _, loss in right if loss not in junk]
  points = _points([path])
  assert (points.y.tolist() if points else []) == good
  if points and 'params' in points.columns:
    assert points.columns['params'].tolist() == [float(n) for n, loss in right if loss not in junk]


@quick
@given(losses=strategies.lists(NUMBERS | JSON, max_size=6))
@example([1e308])
@example([10**400, True, [1], '1_0', 2.5])
def test_a_jsonl_table_gives_the_rows_that_are_numbers(tmp_path, losses):
  path = tmp_path / 'table.jsonl'
  path.write_text(''.join(json.dumps({'run': i, 'step': i, 'loss': loss}) + '\n' for i, loss in enumerate(losses)))
  points = _points([path])
  good = [float(loss) for loss in losses if type(loss) in (int, float) and 0 < loss <= sys.float_info.max]
  texts = sum(isinstance(loss, str) for loss in losses)  # strings of numbers count too, as in CSV
  found = points.y.tolist() if points else []
  assert [value for value in found if value in good] == good and len(found) <= len(good) + texts


COLUMNS = ('split', 'loss', 'examples', 'step', 'flops', 'unique_examples')
FIELDS = ('config', 'config_hash', 'lineage', 'params', 'params_non_embedding', 'data', 'status', 'results')


@quick
@given(run=strategies.dictionaries(strategies.sampled_from(FIELDS), JSON),
       rows=strategies.lists(strategies.dictionaries(strategies.sampled_from(COLUMNS), JSON), max_size=3),
       last=strategies.dictionaries(strategies.sampled_from(['examples', 'flops']), JSON))
def test_any_run_folder(tmp_path, run, rows, last):
  (tmp_path / 'run').mkdir(exist_ok=True)
  (tmp_path / 'run' / records.RUN).write_text(json.dumps({'params': 10, **run, 'status': 'finished'}))
  rows = [*({'split': 'train', 'step': 1, **row} for row in rows), {'split': 'val', 'step': 2, 'loss': 2.5, **last}]
  (tmp_path / 'run' / records.METRICS).write_text(''.join(json.dumps(row) + '\n' for row in rows))
  points = _points([tmp_path])
  assert points is None or points.y.tolist() == [2.5]
