"""The `law` command: the contract of law.json, the page, the figures and the error messages."""

import html
import json
import math
import re

import command_line
import numpy as np
import pytest

from vit_jax import goodput
from vit_jax.scaling import analysis, law_page, payload, plot
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import load

EVIL = '</script><img src=x onerror=alert(1)>"\'&\u2028$x_1^2$'


def table(path, name='chinchilla', noise=0.005):
  """An IsoFLOP grid of two recipes, the second with a 3% lower loss. The name of one run is markup."""
  random, rows = np.random.default_rng(0), []
  for recipe in ('a', 'b'):
    for budget in (1e15, 1e16, 1e17):
      for n in np.geomspace(0.3, 3, 6) * 0.04 * budget ** 0.5:
        d = budget / (6 * n)
        loss = (0.5 + 200 * n ** -0.35 + 300 * d ** -0.3) * (0.97 if recipe == 'b' else 1)
        rows.append((EVIL.replace('"', '""') if not rows else f'run{len(rows)}', recipe, n, d, budget,
                     loss * math.exp(noise * random.standard_normal())))
  lines = ['run,recipe,params,examples,flops,loss'] + [f'"{r[0]}",' + ','.join(map(str, r[1:])) for r in rows]
  path.write_text('\n'.join(lines) + '\n')
  return path


def law(*arguments):
  return command_line.run('law', *arguments, env=command_line.ON_CPU | {'COLUMNS': '100'})


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp('law')
  done = law(table(folder / 'points.csv'), '--form=chinchilla', '--group=recipe', '--holdout=flops>=1e17',
             '--bootstrap=100', '--budget=1e18', f'--out={folder}/out')
  assert done.returncode == 0, done.stderr
  return done.stdout, folder / 'out'


def test_law_json_keeps_its_contract(written):
  laws = json.loads((written[1] / 'law.json').read_text())
  assert set(laws['groups']) == {'a', 'b'} and '--budget=1e18' in laws['command']
  for fit in laws['groups'].values():
    assert {'form', 'metric', 'n', 'coefficients', 'objective', 'ci95', 'bootstrap', 'holdout', 'compute_optimal',
            'warnings'} <= set(fit)
    assert (fit['form'], fit['metric'], fit['n']) == ('chinchilla', 'loss', 12)
    assert set(fit['coefficients']) == set(fit['ci95']) == {'E', 'A', 'alpha', 'B', 'beta'}
    assert (fit['bootstrap']['n'], fit['bootstrap']['seed'], fit['holdout']['n']) == (100, 0, 6)
    assert all(low <= high for low, high in fit['ci95'].values())
    measured, predicted = (np.array([row[k] for row in fit['holdout']['rows']]) for k in ('measured', 'predicted'))
    assert fit['holdout']['rmsle'] == pytest.approx(np.sqrt(np.mean(np.log(predicted / measured) ** 2)))
    assert fit['holdout']['rmse'] == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)))
    row, = fit['compute_optimal']['rows']
    assert row['flops'] == 1e18 == pytest.approx(6 * row['params'] * row['examples'], rel=1e-3)
    assert row['loss_run_ci95'][0] < row['loss'] < row['loss_run_ci95'][1]


def test_terminal_ends_in_a_verdict_and_a_multiplier(written):
  assert re.search(r'verdict: predicts 6 held-out points up to 10x the largest fitted size to within [\d.]+%',
                   written[0])
  multiplier, = json.loads((written[1] / 'law.json').read_text())['multipliers']
  assert multiplier['multiplier'] < 1 and 'x the FLOPs of a' in written[0]


def test_the_best_of_a_table_is_what_the_objectives_declare(tmp_path):
  lines = ['x,rate,accuracy'] + [f'{x},{rate},{accuracy * x ** -0.1}' for x in (1, 2, 4, 8, 16)
                                 for rate, accuracy in ((0.1, 0.5), (0.2, 0.9))]
  (tmp_path / 'points.csv').write_text('\n'.join(lines) + '\n')
  done = law(tmp_path / 'points.csv', '--form=power', '--x=x', '--metric=accuracy', '--best_of=rate', '--bootstrap=20',
             f'--out={tmp_path}/out')
  assert done.returncode == 0, done.stderr
  assert json.loads((tmp_path / 'out/law.json').read_text())['coefficients']['b'] == pytest.approx(0.9, rel=1e-3)


def test_the_multiplier_of_a_law_of_one_input(tmp_path):
  """One group needs half the x of the other for the same loss, so the true multiplier is 0.5."""
  lines = ['kind,unique_examples,error']
  for kind, factor in (('cnn', 1), ('vit', 2)):
    lines += [f'{kind},{x},{2 * (factor * x) ** -0.3 + 0.05}' for x in (500, 1000, 2000, 4000, 8000, 16000)]
  (tmp_path / 'points.csv').write_text('\n'.join(lines) + '\n')
  done = law(tmp_path / 'points.csv', '--form=power_offset', '--x=unique_examples', '--metric=error', '--group=kind',
             '--bootstrap=20')
  assert done.returncode == 0, done.stderr
  assert re.search(r'vit reaches error 0\.1\d+ with 0\.5x the unique_examples of cnn \(95%: 0\.5', done.stdout)


def test_figures_are_written(written):
  names = {path.name for path in written[1].iterdir()}
  for group in 'ab':
    for figure in (f'law-{group}', f'law-{group}-checks', f'law-{group}-optimum', f'law-{group}-isoflop'):
      assert (written[1] / f'{figure}.png').read_bytes().startswith(b'\x89PNG')
      assert f'{figure}.svg' in names
  together = (written[1] / 'law-all.svg').read_text()
  assert all(f'>{group}, compute-optimal<' in together for group in 'ab')
  assert (written[1] / 'law-all.png').exists() and '>training FLOPs<' in together


def test_the_page_escapes_logged_text_and_needs_no_network(written):
  page = (written[1] / 'report.html').read_text()
  assert '<img' not in page and page.count('</script>') == 2 and '\u2028' not in page
  data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
  assert data['groups'][0]['points'][0]['run'] == EVIL  # the page shows the logged name
  assert "default-src 'none'" in page
  assert not re.search(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(', page)
  assert not [url for url in re.findall(r'https?://[^\s"\']+', page) if url != 'http://www.w3.org/2000/svg']


def test_the_answer_of_a_comparison_is_the_title_of_its_page(written):
  page, law = (written[1] / 'report.html').read_text(), json.loads((written[1] / 'law.json').read_text())
  answer = law['multipliers'][0]['words']
  assert f'<title>{html.escape(answer)}</title>' in page and f'<noscript><p>{html.escape(answer)}</p>' in page


def test_the_page_has_every_point_and_band(written):
  data = json.loads(re.search(r'id="data">(.*?)</script>', (written[1] / 'report.html').read_text(), re.S)[1])
  group = data['groups'][1]
  assert len({other['color'] for other in data['groups']}) == 2
  assert sum(p['state'] == 'held' for p in group['points']) == 6 and len(group['points']) == 18
  banded = [line for line in group['figure']['lines'] if 'band_run' in line]
  for low, law_low, law_high, high in zip(*(banded[0][k][i] for k, i in (
      ('band_run', 0), ('band_law', 0), ('band_law', 1), ('band_run', 1)))):
    assert low <= law_low * 1.01 and law_low <= law_high and law_high <= high * 1.01  # the noise is random
  answers = dict(data['groups'][0]['checklist'])
  assert 'summed' in answers['Objective'] and '4500 scored' in answers['Starts']


def test_the_page_and_law_json_have_the_lights(written):
  data = json.loads(re.search(r'id="data">(.*?)</script>', (written[1] / 'report.html').read_text(), re.S)[1])
  laws = json.loads((written[1] / 'law.json').read_text())['groups']
  for group in data['groups']:
    assert group['law']['lights'] == laws[group['name']]['lights']
    assert set(group['law']['lights']) == {'predictive', 'calibrated', 'identified'}
  assert 'predictive: green, RMSLE' in written[0] and 'calibrated: amber, 6 of 6 held-out' in written[0]


def test_the_limits_of_the_figure_hold_points_curves_and_bands():
  lines = [{'y': [2.0, 9.0], 'band_run': [[1.5, 8.0], [2.5, 11.0]], 'band_law': [[1.8, 8.5], [2.2, 9.5]]},
           {'y': [4.0, 3.0]}]
  low, high = plot._limits([3.0, 5.0], lines)
  assert low < 1.5 and high > 11
  lines[0]['band_run'] = [[1e-9, 8.0], [2.5, 1e9]]  # without limit
  low, high = plot._limits([3.0, 5.0], lines)
  assert 0.4 < low < 1.8 and 9.5 < high < 45


def test_many_groups_are_a_table_and_a_small_page(tmp_path):
  random, lines = np.random.default_rng(0), ['task,x,loss']
  for task in range(12):
    lines += [f't{task},{x},{(1 + task + 30 * x ** -0.3) * np.exp(0.01 * random.standard_normal())}'
              for x in np.geomspace(1e3, 1e6, 10)]
  (tmp_path / 'points.csv').write_text('\n'.join(lines) + '\n')
  done = law(tmp_path / 'points.csv', '--x=x', '--form=power_offset', '--group=task', '--bootstrap=20',
             f'--out={tmp_path}/out')
  assert done.returncode == 0 and 'Warning' not in done.stderr, done.stderr
  assert len(done.stdout.splitlines()) < 30 and ' reaches ' not in done.stdout and '12 groups' in done.stdout
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['law-all.png', 'law-all.svg', 'law.json',
                                                                        'report.html']
  assert (tmp_path / 'out/report.html').stat().st_size < 12 * 28e3 + 1e5


def test_the_page_shows_how_the_runs_spent_their_time(tmp_path):
  points = load([table(tmp_path / 'points.csv')], columns={'loss': 'loss'}, need=['params', 'examples'])
  data = [payload.payload('', analysis.analyse(points, analysis.Settings('chinchilla', Objective(), 0)))]
  read = lambda text: json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])['time']
  assert points.time_spent == goodput.total([]) and read(law_page.page(data, [], '', points.time_spent)) == []
  spent = goodput.total([]) | {'step': 30.0, 'lost': 10.0}
  shares = {part['what']: part['share'] for part in read(law_page.page(data, [], '', spent))}
  assert shares['steps'] == 0.75 and shares['lost to restarts'] == 0.25 and shares['compiling'] == 0


def test_svgs_do_not_parse_names_as_math(tmp_path):
  points = load([table(tmp_path / 'points.csv')], columns={'loss': 'loss'}, need=['params', 'examples'])
  found = analysis.analyse(points, analysis.Settings('chinchilla', Objective(), 0))
  where = law_page.write(str(tmp_path / 'out'), {'$x_1^2': found}, [], '')
  assert '$x_1^2' in (tmp_path / 'out/law-_x_1_2.svg').read_text() and 'law-_x_1_2.png' in where


@pytest.mark.parametrize('arguments, words', [
    ([], 'expected run folders or tables'),
    (['--form=chinchila'], "did you mean 'chinchilla'"),
    (['--form=power'], 'expected --x'),
    (['--form=chinchilla', '--x=flops'], 'expected no --x'),
    (['--form=power', '--x=flop'], "did you mean 'flops'"),
    (['--form=chinchilla', '--columns=params'], 'OURS=THEIRS'),
    (['--form=chinchilla', '--columns=parms=N'], "did you mean 'params'"),
    (['--form=chinchilla', '--sigma=loss2'], "--sigma=loss2: loss2: unknown column; did you mean 'loss'"),
    (['--form=chinchilla', '--budget=-1'], 'a number above 0'),
    (['--form=power', '--x=flops', '--budget=1e18', '--group=recipe'], '--budget=1e18: expected a form in params'),
    (['--form=chinchilla', '--holdout=flops>=1e16', '--bootstrap=0', '--metric=loss', '--group=run'], '--group, run')])
def test_errors_are_one_line_and_exit_1(tmp_path, arguments, words):
  done = law(*([table(tmp_path / 'points.csv')] if arguments else []), *arguments)
  assert done.returncode == 1 and words in done.stderr and 'Traceback' not in done.stderr


def test_a_file_in_the_place_of_a_folder_is_an_error_of_one_line(tmp_path):
  points = table(tmp_path / 'points.csv')
  for out, words in ((points, 'expected a folder, and there is a file of that name'),
                     (f'{points}/in', 'cannot be written or read: Not a directory')):
    done = law(points, '--form=chinchilla', '--group=recipe', '--bootstrap=0', f'--out={out}')
    assert done.returncode == 1 and done.stderr.strip().count('\n') == 0 and words in done.stderr
