"""Which rows are one and the same, which may be compared, and what is read of tables as people have them."""

import gzip
import json
import re

import numpy as np
import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.scaling import expression
from vit_jax.scaling import rows as rows_lib
from vit_jax.scaling.points import load

N = np.geomspace(1e5, 1e8, 5)


def write(folder, text, name='points.csv'):
  path = folder / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def a_run(folder, seed=0, step=100, results=None, data=None, config=None, loss=1.5, **fields):
  config = {'family': 'vit', 'seed': seed, 'optimizer': {'learning_rate': 1e-3}} | (config or {})
  data = {'name': 'digits', 'classes': list('abc'), 'split': {'val': 100, 'test': 50}} | (data or {})
  records.write_run(folder, {'config': config, 'config_hash': f'h{seed}', 'params': 1000, 'data': data,
                             'status': 'finished', 'results': results or {}, **fields})
  rows = [{'split': 'val', 'step': at, 'examples': 64 * at, 'loss': loss * 100 / at} for at in range(50, step + 1, 50)]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_copies_under_other_run_names_are_dropped_and_said(tmp_path):
  rows = [f'{copy}{i},{n:.0f},{2 + 50 * n ** -0.3:.6f}' for copy in 'abc' for i, n in enumerate(N)]
  points = load([write(tmp_path, 'run,params,loss\n' + '\n'.join(rows) + '\n')], need=['params'])
  assert len(points) == 5 and points.runs == [f'a{i}' for i in range(5)]
  assert points.describe_dropped() == [
      '10 dropped, same values as another row, under another name: b0, c0, b1, c1, b2, ...']


def test_a_table_that_is_there_three_times_is_dropped_though_its_losses_are_rounded(tmp_path):
  rows = [f'{copy}{i},{n:.0f},{2 + 50 * n ** -0.3:.1f}' for copy in 'abc' for i, n in enumerate(N)]
  assert len(load([write(tmp_path, 'run,params,loss\n' + '\n'.join(rows) + '\n')], need=['params'])) == 5


def test_two_runs_with_the_same_rounded_loss_stay_two_and_are_said(tmp_path):
  points = load([write(tmp_path, 'run,params,loss\na,1,3.1\nb,1,3.1\nc,2,2.9\nd,3,2.8\ne,4,2.7\n')], need=['params'])
  assert len(points) == 5 and '1 rows have the same values as a row of another name' in points.notes[0]


def test_two_seeds_with_the_same_loss_are_two_runs(tmp_path):
  assert len(load([write(tmp_path, 'run,params,seed,loss\na,1,0,3.14159\nb,1,1,3.14159\n')])) == 2


@pytest.mark.parametrize('header', ['', 'Unnamed: 0', 'index'])
def test_an_index_column_does_not_hide_duplicates(tmp_path, header):
  points = load([write(tmp_path, f'{header},x,loss\n0,1,3\n1,2,2\n2,1,3\n3,4,1\n')], x='x')
  assert points.y.tolist() == [3, 2, 1]


def test_a_backup_copy_of_a_run_folder_counts_once(tmp_path):
  for name in ('a', 'a.backup'):
    a_run(tmp_path / name, loss=1.234567)
  a_run(tmp_path / 'b', seed=1, loss=1.3)
  assert load([tmp_path]).runs == ['a', 'b']


@pytest.mark.parametrize('results, why', [
    ({'step': 200, 'val': {'loss': 0.4}}, 'ends at step 100, but run.json has results of step 200'),
    ({'step': 100, 'val': {'loss': 0.4}}, r'has loss 1.5 on val at step 100, but run.json has 0.4')])
def test_a_log_without_its_last_lines_is_no_point(tmp_path, results, why):
  a_run(tmp_path / 'whole', results={'step': 100, 'val': {'loss': 1.5}})
  a_run(tmp_path / 'half', seed=1, results=results)
  points = load([tmp_path])
  assert points.runs == ['whole'] and points.dropped[0][0] == 'half' and why in points.dropped[0][1]


@pytest.mark.parametrize('data, name', [({'classes': list('abcd')}, 'classes'),
                                        ({'split': {'val': 120}}, 'scored_examples'), ({'name': 'other'}, 'data')])
def test_what_changes_the_meaning_of_a_metric_is_refused_unless_asked_for(tmp_path, data, name):
  a_run(tmp_path / 'a')
  a_run(tmp_path / 'b', 1, data=data)
  with pytest.raises(UserError, match=f'--group={name}, or fit one law to all with --pool={name}'):
    load([tmp_path])
  assert len(load([tmp_path], group=name)) == len(load([tmp_path], pool=[name])) == 2


@pytest.mark.parametrize('difference, words', [
    ({'data': {'image_shape': [32, 32, 3]}}, r'2 picture sizes \(1 of \[28'),
    ({'versions': {'jax': '2'}}, '2 versions of libraries'),
    ({'config': {'data': {'data_dir': '/elsewhere'}}}, '2 paths of the data'),
    ({'code': 'new'}, '2 versions of the code')])
def test_settings_that_differ_are_named(tmp_path, difference, words):
  same = {'data': {'image_shape': [28, 28, 1]}, 'versions': {'jax': '1'}, 'config': {'data': {'data_dir': '/d'}},
          'code': 'old'}
  a_run(tmp_path / 'a', **same)
  a_run(tmp_path / 'b', 1, **(same | difference))
  note, = load([tmp_path]).notes
  assert re.search(words, note)


@pytest.mark.parametrize('contents, named', [
    ([(60, 'a', 'v'), (60, 'a', 'v'), (120, 'b', 'v')], False),  # subsets of the same examples
    ([(60, 'a', 'v'), (60, 'b', 'v')], True), ([(60, 'a', 'v'), (120, 'b', 'w')], True)])
def test_contents_that_follow_from_the_number_of_examples_are_not_named(contents, named):
  rows = [{'unique_examples': n, 'data_contents': json.dumps({'train': train, 'val': val})}
          for n, train, val in contents]
  found = list(rows_lib.notes(rows, {}, None, ()))
  assert [note.partition(' contents')[0] for note in found] == ['the points are of 2'] * named
  other = [{'unique_examples': n, 'data_contents': train} for n, train, _ in contents[:2]]  # of a table, say
  assert len(list(rows_lib.notes(other, {}, None, ()))) == (len({train for _, train, _ in contents[:2]}) > 1)


@pytest.mark.parametrize('last, kept', [('4,1.09876', 4), ('4,1.0', 3), ('4,1.', 3), ('4,1.09876e', 3), ('4', 3)])
def test_a_last_line_that_was_cut_inside_its_number_is_dropped(tmp_path, last, kept):
  points = load([write(tmp_path, f'x,loss\n1,3.21345\n2,2.23451\n3,1.54321\n{last}')], x='x')
  assert len(points) == kept and (kept == 4 or points.dropped[0][1] == 'incomplete last line')
  assert len(load([write(tmp_path, 'x,loss\n1,3\n2,2\n3,1')], x='x')) == 3  # a text editor may leave it out


def test_separators_other_than_commas(tmp_path):
  assert load([write(tmp_path, 'x;loss\n1;3.5\n2;2.5\n')], x='x').y.tolist() == [3.5, 2.5]
  with pytest.raises(UserError, match="separator is ';' and numbers have decimal commas, such as '3,5'"):
    load([write(tmp_path, 'x;loss\n1;3,5\n2;2,5\n')], x='x')
  with pytest.raises(UserError, match=r"got 3 \(the separator is ','\)"):
    load([write(tmp_path, 'x,loss\n1,3,5\n')], x='x')


def test_values_that_are_no_numbers_are_shown(tmp_path):
  points = load([write(tmp_path, 'run,x,loss\na,"1,000,000",3\nb,1M,2\nc,2,12.3%\nd,5,1\n')], x='x')
  assert points.describe_dropped() == ["2 dropped, x is not a number: a ('1,000,000'), b ('1M')",
                                       "1 dropped, loss is not a number: c ('12.3%')"]


RECORDS = [{'run': f'r{i}', 'params': n, 'loss': 2 + 50 * n ** -0.3} for i, n in enumerate(N)]
COLUMNS = {name: [row[name] for row in RECORDS] for name in RECORDS[0]}


@pytest.mark.parametrize('content', [
    RECORDS, COLUMNS, {'runs': RECORDS, 'made': '2026'},
    {name: {str(i): value for i, value in enumerate(column)} for name, column in COLUMNS.items()},
    {row['run']: {'params': row['params'], 'loss': row['loss']} for row in RECORDS}])
def test_layouts_of_json(tmp_path, content):
  points = load([write(tmp_path, json.dumps(content), 'points.json')], need=['params'])
  np.testing.assert_array_equal(points.columns['params'], N)
  assert points.y.tolist() == COLUMNS['loss'] and points.runs == COLUMNS['run']


def test_an_input_that_is_called_like_a_label_is_an_input(tmp_path):
  rows = [f'r{i},{n:.0f},{2 + 50 * n ** -0.3:.6f}' for i, n in enumerate(N)]
  path = write(tmp_path, '\n'.join(['run,data,loss', *rows]) + '\n')
  assert len(load([path], x='data')) == len(load([path], columns={'examples': 'data'}, need=['examples'])) == 5
  with pytest.raises(UserError, match='mix data sets'):
    load([path])


@pytest.mark.parametrize('content', [{'a': 1}, {'a': [1, 2], 'b': [1]}, {'a': {'x': 1}, 'b': 2}, [1, 2], 'text', {}])
def test_json_that_is_no_table_is_refused(tmp_path, content):
  with pytest.raises(UserError, match='expected'):
    load([write(tmp_path, json.dumps(content), 'points.json')])


def test_records_in_records_are_columns(tmp_path):
  rows = [{'name': row['run'], 'config': {'model': {'params': row['params']}}, 'summary': {'loss': row['loss']},
           'tags': {}} for row in RECORDS]
  path = write(tmp_path, '\n'.join(map(json.dumps, rows)) + '\n', 'points.jsonl')
  points = load([path], need=['params'], columns={'params': 'config.model.params', 'loss': 'summary.loss'})
  assert points.y.tolist() == COLUMNS['loss'] and points.columns['params'].tolist() == N.tolist()
  deep = json.loads('{"a":' * 90 + '1' + '}' * 90)
  assert len(load([write(tmp_path, json.dumps([{'loss': 1, 'x': 2, **deep}]), 'deep.json')], x='x')) == 1


def test_two_units_in_one_column_are_asked_about(tmp_path):
  rows = '\n'.join(f'{n / (1e6 if i % 2 else 1)},{3 - i / 9}' for i, n in enumerate(np.geomspace(1e6, 1e9, 8)))
  note, = load([write(tmp_path, 'params,loss\n' + rows + '\n')], need=['params']).notes
  assert 'are some rows in another unit, such as millions?' in note


def test_tables_that_are_packed_or_exported(tmp_path):
  text = 'Name,State,N,loss\na,finished,1,3\nb,crashed,2,9\nc,finished,4,2\nd,running,8,9\n'
  for path in (write(tmp_path, gzip.compress(text.encode()), 'export.csv.gz'), write(tmp_path, text, 'export.csv')):
    points = load([path], x='N')
    assert points.runs == ['a', 'c'] and points.y.tolist() == [3, 2]
    assert points.dropped == (('b', "not finished (State 'crashed')"), ('d', "not finished (State 'running')"))
  with pytest.raises(UserError, match='expected a gzip file'):
    load([write(tmp_path, text, 'plain.csv.gz')])


def test_parquet(tmp_path):
  pyarrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
  parquet.write_table(pyarrow.table({'x': [1, 2], 'loss': [3.5, 2.5]}), tmp_path / 'points.parquet')
  assert load([tmp_path / 'points.parquet'], x='x').y.tolist() == [3.5, 2.5]
  with pytest.raises(UserError, match='expected a Parquet file'):
    load([write(tmp_path, 'x,loss\n', 'text.parquet')])


def test_derived_columns_and_filters(tmp_path):
  path = write(tmp_path, 'params,examples,val/loss,data.kind,loss\n1,10,5,c4,3\n2,10,6,rpj,2\n4,20,7,c4,1\n,,8,c4,9\n')
  assert load([path], x='params*examples').columns['x'].tolist() == [10, 20, 80]
  assert load([path], x='6*params^2').columns['x'].tolist() == [6, 24, 96]
  assert load([path], x='val/loss', where='data.kind == "c4" and not loss > 2').y.tolist() == [1]
  assert load([path], 'loss', 'params', where='data.kind == rpj or val/loss >= 7').y.tolist() == [2, 1]


@pytest.mark.parametrize('text, words', [
    ('__import__("os").system("x")', 'is not allowed'), ('loss.__class__>1', 'unknown column'), ('[1]', 'not allowed'),
    ('lambda: 1', 'not allowed'), ('exp(loss, 1) > 1', 'not allowed'), ('loss >', 'expected an expression'),
    ('(' * 3000, 'expected an expression'), ('los > 1', "did you mean 'loss'"), ('kind > 1', "text, such as 'a'"),
    ('loss', 'expected comparisons'), ('True', 'expected comparisons')])
def test_expressions_that_are_refused(text, words):
  with pytest.raises(UserError, match=words):
    expression.where([{'loss': 1, 'kind': 'a'}, {'loss': 2, 'kind': 'b'}], text)
