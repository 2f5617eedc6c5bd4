"""The recipe of the next run, from run folders whose losses follow a known law exactly."""

import json
import math
from pathlib import Path

import command_line
import numpy as np
import pytest

from vit_jax import config as config_lib
from vit_jax import records, schema
from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.scaling import analysis, design, estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import load
from vit_jax.sweeps import next_run, next_sweep, spec
from vit_jax.training import config as run_config

WIDTHS, STEPS = (16, 24, 32, 48, 64), (100, 200, 400, 800)


def true_loss(n, d):
  return 0.2 + 20 * n ** -0.4 + 30 * d ** -0.35


def config_of(width, steps, **optimizer):
  c = config_lib.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = width, 2, 3 * width, width // 8
  c.data.image_size, c.data.channels, c.data.num_classes, c.data.batch_size = (8, 8), 1, 10, 32
  c.schedule.name, c.schedule.warmup_steps = 'wsd', 5
  c.train.steps = steps
  c.optimizer.learning_rate = 0.2 / width
  c.optimizer.update(optimizer)
  return run_config.cast(c)


def counts(config):
  model = PureModel('vit', config.model, (8, 8, 1), 10)
  return (*flops.params(model), flops.per_example(model)[1])


def make_run(folder, config, loss, params, other, per_example):
  examples = config.train.steps * config.data.batch_size
  records.write_run(folder, {
      'config': schema.plain(config), 'config_hash': schema.config_hash(config), 'lineage': None,
      'params': params, 'params_non_embedding': other, 'data': {'name': 'digits'}, 'status': 'finished'})
  row = {'split': 'val', 'step': config.train.steps, 'examples': examples, 'unique_examples': 1293,
         'flops': examples * per_example, 'loss': loss}
  (folder / 'metrics.jsonl').write_text(json.dumps(row) + '\n')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Five widths at four lengths on the law of `params`."""
  root = tmp_path_factory.mktemp('runs')
  for width in WIDTHS:
    counted = counts(config_of(width, 100))
    for steps in STEPS:
      loss = true_loss(counted[0], 32 * steps)
      make_run(root / f'w{width}-{steps}', config_of(width, steps), loss, *counted)
  return root


def analysed(runs, form='chinchilla', columns=None, **settings):
  inputs = {'power': ['x']}.get(form, ['params', 'examples'])
  paths, x = [runs] if isinstance(runs, Path) else runs, 'examples' if inputs == ['x'] else None
  points = load(paths, x=x, columns=columns)
  return analysis.analyse(points, analysis.Settings(form, Objective(), settings.pop('replicates', 50), **settings))


def test_the_run_spends_the_budget_at_the_nearest_size(runs):
  budget, law = 3e12, analysed(runs)
  run = next_run.choose(law, budget)
  params, _, per_example = counts(run.config)
  assert run.params == params and run.count == 'params'
  assert run.flops == pytest.approx(budget, rel=1e-3) and run.examples * per_example == run.flops
  off = lambda n: abs(math.log(n / run.optimal['params']))
  width = run.shape['width']
  for other in (width - 8, width + 8):  # the ladder's heads are 8 wide
    assert off(params) <= off(counts(config_of(other, 100))[0])
  assert run.shape == {'width': width, 'depth': 2, 'mlp_dim': 3 * width, 'num_heads': width // 8}
  assert width > max(WIDTHS)


def test_the_prediction_is_the_law_at_that_point(runs):
  run = next_run.choose(analysed(runs), 3e12)
  assert run.loss == pytest.approx(true_loss(run.params, run.examples), rel=1e-4)
  assert run.run_ci95[0] <= run.law_ci95[0] <= run.loss <= run.law_ci95[1] <= run.run_ci95[1]
  assert next_run.choose(analysed(runs, replicates=0), 3e12).run_ci95 is None


def test_the_size_is_near_the_best_that_these_shapes_allow(runs):
  """C = k N^q D is only a fit. Among real shapes with their real FLOPs, the chosen one is close to the best."""
  budget = 3e12
  run = next_run.choose(analysed(runs), budget)
  losses = []
  for width in range(32, 257, 32):
    params, _, per_example = counts(config_of(width, 100))
    losses.append(true_loss(params, budget / per_example))
  assert true_loss(run.params, run.examples) <= 1.002 * min(losses)


def test_the_recipe_states_what_was_chosen(runs, tmp_path):
  law = analysed(runs)
  run = next_run.choose(law, 3e12)
  path = tmp_path / 'next.py'
  next_run.write(run, law, str(path), 'python -m vit_jax.law "a\\b" --budget=3e12')
  recipe = config_lib.load_recipe(str(path))
  config = run_config.cast(recipe)
  assert schema.config_hash(config) == schema.config_hash(run.config) and config == run.config
  assert config.schedule.name == 'wsd' and config.schedule.warmup_steps == 5 and config.train.flops == 3e12
  assert config.optimizer.learning_rate == pytest.approx(0.2 / config.model.width, rel=0.01)
  text = path.read_text()
  assert f'{run.loss:.5g}' in text and f'{run.run_ci95[0]:.5g} to' in text and 'n = 20 runs' in text
  for name, value in law.law['coefficients'].items():
    assert f'{name} = {value:.6g}' in text
  assert max(map(len, text.splitlines())) <= 120
  next_run.write(run, law, str(path), '')  # written by us, so it is overwritten
  path.write_text('"""My recipe."""\n')
  with pytest.raises(UserError, match='was not written by this program'):
    next_run.write(run, law, str(path), '')


@pytest.mark.parametrize('form', ['chinchilla_tied', 'overtrain'])
def test_other_forms_in_params_and_examples(runs, form):
  run = next_run.choose(analysed(runs, form), 1e12)
  assert run.flops == pytest.approx(1e12, rel=1e-2) and run.loss < 1


def test_n_is_counted_as_in_the_fit(runs):
  run = next_run.choose(analysed(runs, columns={'params': 'params_non_embedding'}), 3e12)
  assert run.count == 'params_non_embedding' and run.params == counts(run.config)[1]


def test_the_best_of_several_learning_rates_is_used(runs, tmp_path):
  counted = counts(config_of(64, 100))
  for i, steps in enumerate(STEPS):
    config = config_of(64, steps, learning_rate=0.1)
    make_run(tmp_path / f'worse{i}', config, 1.0001 * true_loss(counted[0], 32 * steps), *counted)
  run = next_run.choose(analysed([runs, tmp_path]), 3e12)
  assert run.config.optimizer.learning_rate == pytest.approx(0.2 / run.shape['width'], rel=0.01)
  assert 'width^-1,' in run.rate.words() and run.rate.places == 20


def test_fields_without_a_rule_are_named(runs, tmp_path):
  counted = counts(config_of(64, 100))
  make_run(tmp_path / 'other', config_of(64, 800, weight_decay=0.5), true_loss(counted[0], 32 * 800), *counted)
  run = next_run.choose(analysed([runs, tmp_path]), 3e12)
  assert any('optimizer.weight_decay 0.0, as in the nearest run (of 0.0, 0.5)' in words for words in run.notes)


def test_a_recipe_that_cannot_be_written_is_refused(runs, tmp_path):
  with pytest.raises(UserError, match='must be in params and examples.*power is in x'):
    next_run.choose(analysed(runs, 'power'), 1e12)
  table = tmp_path / 'points.csv'
  points = load([runs])
  rows = [f'{n},{d},{6 * n * d},{y}' for n, d, y in zip(points.columns['params'], points.columns['examples'], points.y)]
  table.write_text('\n'.join(['params,examples,flops,loss', *rows]) + '\n')
  with pytest.raises(UserError, match='expected run folders.*20 of 20 points have none, such as points:2'):
    next_run.choose(analysed(table), 1e12)
  with pytest.raises(UserError, match='FLOPs per example in the points'):
    changed = analysed(runs)
    changed.points.columns['flops'] *= 2
    next_run.choose(changed, 1e12)
  with pytest.raises(UserError, match='schedule.warmup_steps=5'):
    next_run.choose(analysed(runs), 1e6)


@pytest.mark.slow
def test_the_command_writes_a_run_that_trains(runs, tmp_path):
  """law writes it, main trains it: two processes, on the digits."""
  environment = command_line.ON_CPU | {'COLUMNS': '100'}
  call = lambda *words: command_line.run(*words, cwd=tmp_path, env=environment)
  done = call('law', str(runs), '--form=chinchilla', '--bootstrap=20', '--budget=4e8', '--write_config=next.py')
  assert done.returncode == 0, done.stderr
  assert 'next run: width' in done.stdout
  trained = call('main', '--config=next.py', '--workdir=out')
  assert trained.returncode == 0, trained.stderr
  last = [row for row in records.read_rows(tmp_path / 'out/metrics.jsonl') if row['split'] == 'val'][-1]
  assert last['flops'] == pytest.approx(4e8, rel=0.1) and np.isfinite(last['loss'])
  refused = call('law', str(runs), '--form=chinchilla', '--budget=2e9,4e9', '--write_config=next.py')
  assert refused.returncode == 1 and 'expected one --budget' in refused.stderr


def designed(law, cooldown):
  return design.choose(design.of_fit(law.fit, law.points.clusters), {'params': 1e6, 'examples': 1e6}, [1e4, 3e4],
                       [3200, 6400, 25600], law.cost, 3e10, cooldown)


def test_a_design_becomes_a_sweep_of_new_seeds_on_the_ladder(runs, tmp_path):
  law = analysed(runs)
  assert next_sweep.cooldown(law.points) == 0.3
  found, path = designed(law, 0.3), tmp_path / 'next.py'
  origin = next_sweep.of_runs(law.points, 1e4, 3200)
  message = next_sweep.write(found, origin, str(path), 'python -m vit_jax.law')
  assert f'--sweep={path}' in message
  sweep = spec.load(str(path))
  assert len(sweep.runs) == sum(len(trunk.examples) for trunk in found.trunks)
  assert len({tuple(sorted(run.items())) for run in sweep.runs}) == len(sweep.runs)
  for run in sweep.runs:
    assert run['seed'] > 0 and run['train.steps'] in (100, 200, 800) and run['schedule.cooldown_fraction'] == 0.3
    assert run['optimizer.learning_rate'] == pytest.approx(0.2 / run['model.width'], rel=0.01)
    assert run['model.mlp_dim'] == 3 * run['model.width']
  assert found.describe().split(':')[0] in path.read_text().replace('\n', ' ')
  next_sweep.write(found, origin, str(path), 'again')  # its own file is replaced
  path.write_text('x = 1\n')
  for name, words in ((str(path), 'was not written by this program'), ('next.txt', 'ends in .py')):
    with pytest.raises(UserError, match=words):
      next_sweep.write(found, origin, name, '')


ASSUMED = 'E=0.3,A=40,alpha=0.5,B=300,beta=0.4,sigma=0.02'
RECIPE = """from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool, c.model.depth = 2, 'gap', 1
  c.model.width, c.model.mlp_dim, c.model.num_heads = 32, 96, 2
  c.data.source, c.data.image_size, c.data.channels, c.data.num_classes = 'digits', (8, 8), 1, 10
  c.data.batch_size, c.schedule.name, c.train.steps = 64, 'wsd', 100
  return c
"""


def test_a_design_before_any_run_becomes_a_sweep_of_a_recipe(tmp_path):
  """The sweep has multiples of a head's width at muP's one rate, and with shared trunks it costs the budget."""
  (tmp_path / 'own.py').write_text(RECIPE)
  path, origin = tmp_path / 'first.py', next_sweep.of_recipe(f'{tmp_path}/own.py')
  real, lengths = origin.real(np.geomspace(4e3, 6e4, 8)), np.geomspace(2e5, 2e6, 6)
  law = design.assume(ASSUMED, estimate.form_class('chinchilla'), real, lengths)
  found = design.choose(law, {'params': 3e5, 'examples': 4e6}, real, lengths, origin.cost, 1e13, origin.cooldown)
  next_sweep.write(found, origin, str(path), 'python -m vit_jax.law')
  runs, config = spec.load(str(path)).runs, config_lib.load_recipe(str(path))
  assert (config.parametrisation.name, config.parametrisation.base_width) == ('mup', 32)
  sizes, trunks = next_run.Sizes(config.to_dict(), 'params'), {}
  assert len({tuple(sorted(run.items())) for run in runs}) == len(runs)
  for run in runs:
    shape = {key.partition('.')[2]: value for key, value in run.items() if key.startswith('model.')}
    assert shape['width'] == 16 * shape['num_heads'] and shape['mlp_dim'] == 3 * shape['width']
    assert run['optimizer.learning_rate'] == 1e-3 and 2e3 < sizes.params(shape) < 1.2e5
    trunks.setdefault((tuple(shape.items()), run['seed']), []).append(run['train.steps'])
  assert len({shape for shape, _ in trunks}) > 2
  spent = sum(sizes.flops(dict(shape)) * 64 * (0.7 * max(steps) + 0.3 * sum(steps))
              for (shape, _), steps in trunks.items())
  assert spent == pytest.approx(found.flops, rel=0.02) and 0.7e13 < spent < 1.05e13


@pytest.mark.parametrize('flags, words', [
    (['--design', f'--assume={ASSUMED}', '--write_sweep=x.py'], 'expected --recipe'),
    (['--design', '--recipe=quickstart'], 'expected --assume too'),
    (['--assume=E=1'], 'is an option of --design'), (['runs', '--design', '--assume=E=1'], 'before any run')])
def test_options_of_a_design_before_any_run(flags, words):
  done = command_line.run('law', *flags)
  assert done.returncode == 1 and words in ' '.join(done.stderr.split())


def test_recipes_that_no_shapes_follow_from(tmp_path):
  with pytest.raises(UserError, match='expected a model with a width'):
    next_sweep.of_recipe('resnet50')
  (tmp_path / 'own.py').write_text(RECIPE)
  origin = next_sweep.of_recipe(f'{tmp_path}/own.py')
  with pytest.raises(UserError, match='nearest to one shape, width 16, and the ladder goes in steps of 16'):
    origin.real(np.array([4e3, 5e3]))
  assert origin.cost.spread < 0.1 and not origin.cost.assumed
