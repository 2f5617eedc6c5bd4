"""Laws of whole learning curves: the areas of a learning rate, and what a law of two runs says of other schedules."""

import json

import command_line
import numpy as np
import pytest
from test_multi_power import losses as multi_power_losses

from vit_jax import config, schema
from vit_jax.optimisation import schedule as schedule_lib
from vit_jax.scaling import curve_rows
from vit_jax.training import config as run_config

TRUE = dict(E=0.3, A=2.0, alpha=0.5, G=0.2, decay=0.99)
PEAK, WARMUP = 0.01, 50


def _slow(rates, warmup, decay):
  """S1 and S2 as the paper writes them, by two sums."""
  one = np.array([rates[:s].sum() for s in range(1, len(rates) + 1)])
  falls = [0 if k < warmup or k == 0 else rates[k - 1] - rates[k] for k in range(len(rates))]
  inner = [sum(falls[k] * decay ** (i - k) for k in range(i + 1)) for i in range(len(rates))]
  return one, np.array([sum(inner[:s]) for s in range(1, len(rates) + 1)])


@pytest.mark.parametrize('decay', [0.0, 0.9, 0.999])
def test_areas_are_the_sums_of_the_paper(decay):
  rates = np.concatenate([np.linspace(0.1, 1, 10), np.ones(10), np.linspace(1, 0.2, 15), np.linspace(0.2, 0.6, 5)])
  area, held = curve_rows.areas(rates, 10, decay)
  one, two = _slow(rates, 10, decay)
  np.testing.assert_allclose(area, one)
  np.testing.assert_allclose(held - area, two, atol=1e-12)


def test_without_forgetting_what_is_held_is_the_peak():
  rates = np.concatenate([np.ones(10), np.linspace(1, 0, 10)])
  np.testing.assert_allclose(curve_rows.areas(rates, 0, 1.0)[1], np.arange(1, 21))


def _tissue(rates):
  """The losses of the true law after each step."""
  area, held = curve_rows.areas(rates, WARMUP, TRUE['decay'])
  return TRUE['E'] + TRUE['A'] / area ** TRUE['alpha'] - TRUE['G'] * (held - area)


def _write(folder, name, schedule, steps, status='finished', until=None, since=0, seed=0, law=_tissue,
           every=20):
  """A run folder with the losses of a law."""
  c = config.defaults('vit')
  c.schedule.update(dict(schedule, warmup_steps=WARMUP))
  c.optimizer.learning_rate, c.train.steps, c.seed = PEAK, steps, seed
  cast = run_config.cast(c)
  rates = PEAK * schedule_lib.multiplier(cast.schedule, steps, np.arange(steps), np)
  losses = law(rates)
  random, lines = np.random.default_rng(len(name) + seed), []
  for step in range(every, (until or steps) + 1, every):
    if step > since:
      noisy = losses[step - 1] * np.exp(0.002 * random.normal())
      lines.append({'split': 'val', 'step': step, 'examples': 32 * step, 'loss': noisy})
  (folder / name).mkdir(parents=True)
  (folder / name / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (folder / name / 'run.json').write_text(json.dumps({
      'config': schema.plain(cast), 'config_hash': name, 'status': status, 'steps': steps, 'params': 1000,
      'results': {'step': steps, 'val': {'loss': lines[-1]['loss']}} if status == 'finished' else {}}))
  return lines[-1]['loss']


@pytest.fixture(name='runs', scope='module')
def _runs(tmp_path_factory):
  """Trunks of three seeds, a short branch of each, and, held out: a long branch and a cosine, and a pruned model."""
  folder = tmp_path_factory.mktemp('curves') / 'runs'
  for seed in range(3):
    _write(folder, f'trunk{seed}', {'name': 'wsd'}, 2000, 'trunk', until=1400, seed=seed)
    _write(folder, f'short{seed}', {'name': 'wsd'}, 1000, since=700, seed=seed)
  ends = [_write(folder, 'long', {'name': 'wsd'}, 2000, since=1400), _write(folder, 'cosine', {'name': 'cosine'}, 2000)]
  _write(folder, 'pruned', {'name': 'cosine'}, 2000, 'pruned', until=400)
  return folder, ends


def test_a_law_of_trunks_and_short_branches_predicts_other_schedules(runs, tmp_path):
  folder, ends = runs
  done = command_line.run('law', folder, '--curves=auto', '--holdout=length>=2000', '--bootstrap=50',
                          f'--out={tmp_path}')
  assert done.returncode == 0, done.stderr
  law = json.loads((tmp_path / 'law.json').read_text())
  assert any('a decay of 0.99 in S2' in note for note in law['notes']), law['notes']
  assert any('the decay was chosen from' in note for note in law['notes'])
  for name in ('E', 'A', 'alpha', 'G'):
    assert law['coefficients'][name] == pytest.approx(TRUE[name], rel=0.1), law['coefficients']
  assert law['holdout']['rmsle'] < 0.01 and law['ci95']
  measured = {row['run']: row['measured'] for row in law['holdout']['rows']}
  assert measured == pytest.approx({'long': ends[0], 'cosine': ends[1]}), 'the last row of each is its end'
  assert any('pruned' in words for words in law['dropped'])


def test_a_given_decay_is_used_and_others_are_refused(runs):
  done = command_line.run('law', runs[0], '--curves=0.9', '--bootstrap=0')
  assert done.returncode == 0 and 'a decay of 0.9 in S2' in done.stdout, done.stderr
  apart = command_line.run('law', runs[0], '--curves=0.9', '--best_of=learning_rate')
  assert apart.returncode == 1 and '--best_of is about the ends of runs, and --curves=0.9 reads all' in apart.stderr
  for text in ('1', '-0.1', 'x', 'nan'):
    refused = command_line.run('law', runs[0], f'--curves={text}')
    assert refused.returncode == 1, text
    assert f'--curves={text}: expected auto, multi_power, or a decay from 0' in refused.stderr


def test_a_multi_power_law_predicts_other_schedules_and_refuses_what_it_cannot(tmp_path):
  """Fitted to trunks, two cooldowns of other lengths and a step, it predicts a long cooldown and a cosine."""
  runs = tmp_path / 'runs'
  for seed in range(3):
    same = {'seed': seed, 'law': multi_power_losses, 'every': 100}
    _write(runs, f'trunk{seed}', {'name': 'wsd'}, 2000, 'trunk', until=1400, **same)
    _write(runs, f'short{seed}', {'name': 'wsd'}, 1000, since=700, **same)
    _write(runs, f'slow{seed}', {'name': 'wsd', 'cooldown_fraction': 0.7}, 1200, since=360, **same)
  for name, schedule in (('long', {'name': 'wsd'}), ('cosine', {'name': 'cosine'})):
    _write(runs, name, schedule, 2000, since=1400, law=multi_power_losses, every=100)
  done = command_line.run('law', runs, '--curves=multi_power', '--holdout=length>=2000', '--bootstrap=0',
                          f'--out={tmp_path}')
  assert done.returncode == 0, done.stderr
  law = json.loads((tmp_path / 'law.json').read_text())
  assert law['holdout']['rmsle'] < 0.005 < 0.05 < law['holdout']['rmsle_persistence']
  for flags, words in ((('--curves=multi_power', '--form=power', '--x=area'), 'leave --form, --start and --target out'),
                       (('--curves=multi_power', '--target=area=10'), 'no target says a whole schedule'),
                       (('--form=multi_power',), 'expected --curves=multi_power')):
    refused = command_line.run('law', runs, *flags)
    assert refused.returncode == 1 and words in refused.stderr, refused.stderr


def test_tables_are_refused(tmp_path):
  (tmp_path / 'points.csv').write_text('params,loss\n1,2\n')
  done = command_line.run('law', tmp_path / 'points.csv', '--curves=auto')
  assert done.returncode == 1 and 'is a table; expected run folders' in done.stderr, done.stderr
