"""vit_jax from Python: what the commands do, and what a notebook shows."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from absl import flags, logging
from command_line import ROOT
from sklearn import datasets

import vit_jax
from vit_jax import config, law_options, records, sweeps
from vit_jax.comparison import runs as comparison_runs
from vit_jax.errors import UserError
from vit_jax.rehearsal import compiler
from vit_jax.shown import Table

TINY = {'model': {'patch_size': 4, 'width': 16, 'depth': 1, 'mlp_dim': 16, 'num_heads': 2},
        'data': {'batch_size': 32}, 'train': {'steps': 30}}


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return vit_jax.train('quickstart', tmp_path_factory.mktemp('run') / 'a', quiet=True, **TINY)


def test_training_is_that_of_the_command(run, capsys):
  record = records.read_run(run.place)
  assert record['status'] == 'finished' and record['results']['test'] == run.results['test']
  length, schedule = record['config']['train'], record['config']['schedule']
  assert (length['steps'], length['epochs'], record['config']['model']['width']) == (30, 0, 16)
  assert schedule['warmup_steps'] == 3  # of 50, which do not fit
  assert run.metrics['step'][-1] == 30 and run.metrics['loss'].dtype == float
  assert 'test accuracy' in repr(run) and '<pre' in run._repr_html_()
  again = vit_jax.train('quickstart', run.place, **TINY)  # finished: read, not trained
  assert again.results == run.results and 'images/s' not in capsys.readouterr().out


def test_mistakes_are_in_words():
  with pytest.raises(UserError, match="did you mean 'width'"):
    vit_jax.train('quickstart', model={'widht': 3})
  with pytest.raises(UserError, match='no recipe quickstrat'):
    vit_jax.train('quickstrat')
  with pytest.raises(UserError, match='patch_size=3 does not divide'):
    vit_jax.train('quickstart', model={'patch_size': 3})


def test_scores_and_predictions(run, tmp_path):
  scores = vit_jax.evaluate(run)
  assert scores.summary['accuracy'] == pytest.approx(run.results['test']['accuracy'])
  assert scores.confusion.sum() == 360 and len(scores.classes) == 10 and 'calibration error' in repr(scores)
  images = (datasets.load_digits().images[:3] * 255 / 16).astype('uint8')
  predicted = vit_jax.predict(run, images)
  assert predicted.probabilities.shape == (3, 10) and len(predicted.classes) == 3
  np.testing.assert_allclose(predicted.probabilities.sum(axis=1), 1, rtol=1e-5)
  assert predicted.table['picture'].tolist() == ['0', '1', '2']
  maps = vit_jax.attention(run, images).last
  assert maps.ndim == 3 and len(maps) == 3
  np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
  (tmp_path / 'broken.png').write_bytes(b'no picture')
  with pytest.raises(UserError, match='none of the 1 pictures could be read'):
    vit_jax.predict(run, tmp_path)


def test_arrays_are_data(tmp_path):
  digits = datasets.load_digits()
  x, y = digits.images / 16, np.array(['even', 'odd'])[digits.target % 2]
  source = vit_jax.arrays(x, y)
  assert source == vit_jax.arrays(x, y) != vit_jax.arrays(x, y[::-1])  # named by its contents
  done = vit_jax.train('quickstart', tmp_path / 'run', quiet=True, **TINY | {'data': {'source': source}})
  assert done.record['data']['classes'] == ['even', 'odd'] and done.record['data']['split']['train'] == 1293
  with pytest.raises(UserError, match='these arrays are not in this process'):
    vit_jax.train('quickstart', data={'source': 'arrays:0123456789'})


@pytest.mark.parametrize('x, y, message', [
    (np.zeros((4, 8)), np.zeros(4, int), r'shape \(4, 8\)'),
    (np.zeros((4, 8, 8)), np.zeros(3, int), '4 pictures and 3'),
    (np.full((4, 8, 8), 16.0), np.zeros(4, int), 'floats from 0 to 1'),
    (np.zeros((4, 8, 8)), np.array([0, 1, -1, 0]), 'labels from -1 to 1'),
    (np.zeros((4, 8, 8)), np.zeros((4, 10, 2)), r'labels of the shape \(4, 10, 2\)'),
    (np.zeros((4, 8, 8)), np.full((4, 10), 2), 'labels other than 0 and 1')])
def test_arrays_that_are_no_pictures_are_refused(x, y, message):
  with pytest.raises(UserError, match=message):
    vit_jax.arrays(x, y)


@pytest.mark.slow
def test_a_config_made_in_python_and_two_runs_compared(run, tmp_path):
  c = config.load_recipe('quickstart')
  c.update({name: values for name, values in TINY.items() if name != 'train'})
  other = vit_jax.train(c, tmp_path / 'b', quiet=True, **{'train.steps': 30, 'seed': 1})
  assert other.record['config']['seed'] == 1 and c.seed == 0 and c.train.epochs == 80  # what is given stays as it is
  assert vit_jax.compare(run, run.place).equal
  different = vit_jax.compare(run, other)
  assert not different.equal and different.verdict in ' '.join(repr(different).split())
  assert isinstance(different.found, comparison_runs.Comparison)


N = np.array([1e5, 3e5, 1e6, 3e6, 1e7, 3e7])


@pytest.mark.parametrize('data', [
    {'n': N, 'loss': 4 * N**-0.3}, [{'n': n, 'loss': 4 * n**-0.3} for n in N.tolist()]])
def test_a_law_of_a_table_in_memory(data, tmp_path):
  law = vit_jax.fit(data, 'power', 'n', bootstrap=20, holdout='largest:1')
  assert dict(zip(law.coefficients['coefficient'], law.coefficients['value'])) == pytest.approx({'b': 4, 'c': -0.3})
  np.testing.assert_allclose(law.predict(n=[1e8]), 4 * 1e8**-0.3, rtol=1e-6)
  assert law.verdict in ' '.join(repr(law).split()) and law.points['held_out'].sum() == 1
  assert law.points['n'].tolist() == N.tolist()
  law.write(tmp_path / 'out')
  assert json.loads((tmp_path / 'out/law.json').read_text())['form'] == 'power'
  with pytest.raises(UserError, match='expected --x'):
    vit_jax.fit(data, 'power')


def test_a_law_has_the_options_of_the_command(tmp_path):
  """A written form with its starts, filters, groups, comparisons and targets, as lists or as texts."""
  rows = [{'model': model, 'n': n, 'error': c * n**-0.3, 'attempt': attempt} for model, c in (('a', 4.0), ('b', 3.0))
          for n in N.tolist() for attempt in ('good', 'bad')]
  options = {'metric': 'error', 'columns': {'params': 'n'}, 'where': 'attempt==good', 'bootstrap': 20,
             'start': 'a=0.1..1', 'target': 'params=1e9'}
  laws = vit_jax.fit(rows, 'c*N^-a', group='model', compare=['a', 'b'], **options)
  assert laws.names == ['a', 'b'] and isinstance(laws['b'], vit_jax.outcomes.Law)
  assert laws['b'].law['coefficients'] == pytest.approx({'c': 3, 'a': 0.3}, rel=1e-3) and laws['a'].law['n'] == len(N)
  assert laws.targets['predicted'].tolist() == pytest.approx([4 * 1e9**-0.3, 3 * 1e9**-0.3], rel=1e-3)
  assert 'predictions' in repr(laws) and json.loads((tmp_path / 'law.json').read_text() if laws.write(tmp_path) else '')
  one = vit_jax.fit(rows, 'power', 'n', pool='model,attempt', metric='error', bootstrap=0)
  assert one.law['n'] == len(rows) and len(one.targets) == 0
  good = vit_jax.fit(rows, 'power', 'n', group='model', metric='error', where='attempt==good', bootstrap=20)
  assert good.comparisons['multiplier'].tolist() == pytest.approx([(3 / 4)**(1 / 0.3)], rel=1e-3)


@pytest.mark.parametrize('options, words', [
    ({'hodlout': 'largest:1'}, "unknown option of a law; did you mean 'holdout'"),
    ({'seed': -1}, 'a whole number from 0'), ({'bootstrap': 2.5}, 'a whole number'),
    ({'budget': ['much']}, '--budget=much: expected a number'), ({'where': 3}, 'where=3: expected a text'),
    ({'columns': ['n']}, 'expected OURS=THEIRS')])
def test_options_of_a_law_that_are_wrong(options, words):
  with pytest.raises(UserError, match=words):
    vit_jax.fit({'n': N, 'loss': 4 * N**-0.3}, 'power', 'n', **options)


def test_every_option_of_a_law_is_a_flag_and_an_argument():
  options = law_options.of(best_of='learning_rate', columns={'params': 'n'}, budget=['1e18'], form='chinchilla')
  assert options == law_options.of(best_of=['learning_rate'], columns=['params=n'], budget=1e18, form='chinchilla')
  assert {'--best_of=learning_rate', '--columns=params=n', '--budget=1e18'} < set(options.words())
  values = flags.FlagValues()
  holders = law_options.define(values)
  values(['law', '--columns=params=n', '--budget=1e18', '--best_of=learning_rate', '--form=chinchilla'])
  assert law_options.of_flags(holders) == options and set(values) >= set(law_options.FIELDS)


def test_a_plan_without_the_compiler():
  plan = vit_jax.plan('vit_s16', 'v5e-16', compiled=False, data={'batch_size': 1024})
  assert plan.fits is None and plan.figures['chips'] == 16 and 'chip-hours' in repr(plan)
  plan = vit_jax.plan('quickstart', gpu='l4-1')
  assert plan.fits is None and plan.figures['estimated'] and 'NVIDIA L4' in repr(plan)
  with pytest.raises(UserError, match='expected one of --tpu and --gpu'):
    vit_jax.plan('quickstart')


@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
def test_a_plan_with_it():
  assert vit_jax.plan('quickstart', 'v5e-1').fits


@pytest.mark.slow
def test_a_sweep_and_its_law(tmp_path):
  runs = [{**choice, 'train.steps': 20, 'model.width': 16, 'model.depth': 1, 'model.mlp_dim': 16,
           'schedule.warmup_steps': 2} for choice in sweeps.axis('data.unique_examples', 64, 128, 256)]
  found = vit_jax.sweep(sweeps.Sweep('quickstart', runs), tmp_path / 'sweep', quiet=True)
  assert sorted(found.table['data.unique_examples']) == [64, 128, 256] and (found.table['status'] == 'finished').all()
  law = vit_jax.fit(found, 'power', 'unique_examples', bootstrap=0)
  assert len(law.points) == 3 and law.coefficients['low'].tolist() == pytest.approx([np.nan] * 2, nan_ok=True)
  with pytest.raises(UserError, match='no recipe quickstrat'):
    vit_jax.sweep(sweeps.Sweep('quickstrat', runs), tmp_path / 'other', quiet=True)


def test_libraries_are_as_loud_as_before(run):
  logging.set_verbosity(logging.INFO)
  try:
    vit_jax.evaluate(run, 'val')
    assert logging.get_verbosity() == logging.INFO
  finally:
    logging.set_verbosity(logging.WARNING)


def test_a_table():
  table = Table.of([{'a': 1, 'b': 'x<y'}, {'a': 2.5, 'c': None}])
  assert table.columns == ['a', 'b', 'c'] and table['a'].tolist() == [1, 2.5] and table['b'].tolist() == ['x<y', None]
  assert 'x&lt;y' in table._repr_html_() and 'x<y' in repr(table) and len(table) == 2
  with pytest.raises(KeyError):
    print(table['d'])
  pandas = pytest.importorskip('pandas')
  pandas.testing.assert_frame_equal(table.to_pandas(), pandas.DataFrame(
      {'a': [1, 2.5], 'b': ['x<y', None], 'c': [None, None]}))


@pytest.mark.slow
def test_a_type_checker_passes_over_it():
  pytest.importorskip('mypy', reason='no mypy')
  checked = subprocess.run([sys.executable, '-m', 'mypy'], cwd=ROOT, capture_output=True, text=True)
  assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_functions_are_what_the_package_has():
  module = importlib.import_module('vit_jax.compare')  # as a command does: it does not hide the function
  assert callable(vit_jax.compare) and vit_jax.compare is not module and set(vit_jax.__all__) <= set(dir(vit_jax))
  with pytest.raises(AttributeError, match='has no attribute'):
    print(vit_jax.nothing)
