"""The pages that the programs write, in a browser: a law's, of one group and of two, a run's, and that of many runs."""

import board_runs
import chromium
import numpy as np
import pytest

import vit_jax
from vit_jax.inspection import evaluation, run_page
from vit_jax.scaling import analysis, law_page, points
from vit_jax.sweeps import board_page

pytestmark = pytest.mark.slow
PAGES = ('law', 'groups', 'run', 'board', 'begun')


@pytest.fixture(name='browser', scope='module')
def _browser():
  with chromium.started() as browser:
    yield browser


def _write_laws(folder):
  """The pages of a law and of two groups' laws, with a hold-out, intervals and a budget."""
  random = np.random.default_rng(0)
  rows = ['run,recipe,params,examples,flops,loss'] + [
      f'{recipe}{i},{recipe},{n},{c / (6 * n)},{c},'
      f'{(0.5 + 200 * n ** -0.35 + 300 * (c / (6 * n)) ** -0.3) * factor * np.exp(0.005 * random.standard_normal())}'
      for recipe, factor in (('a', 1), ('b', 0.97)) for c in (1e15, 1e16, 1e17)
      for i, n in enumerate(np.geomspace(0.3, 3, 6) * 0.04 * c ** 0.5)]
  (folder / 'points.csv').write_text('\n'.join(rows) + '\n')
  settings = analysis.Settings('chinchilla', replicates=20, holdout='flops>=1e17', budgets=(1e18,))
  for name, column in (('law', None), ('groups', 'recipe')):
    found = points.load([folder / 'points.csv'], group=column)
    groups = analysis.analyse_groups(analysis.split_groups(found, column), settings)
    law_page.write(folder / name, groups, analysis.multipliers(groups, analysis.pairs(list(groups))), 'a command')
    yield name, groups


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  return tmp_path_factory.mktemp('pages')


@pytest.fixture(name='laws', scope='module')
def _laws(folder):
  return dict(_write_laws(folder))


@pytest.fixture(name='pages', scope='module')
def _pages(folder, laws):
  """{name: address} of a page of each kind."""
  run = vit_jax.train('quickstart', folder / 'run', quiet=True, data={'batch_size': 32}, train={'steps': 60},
                      model={'width': 16, 'depth': 2, 'mlp_dim': 16, 'num_heads': 2})
  run_page.write(evaluation.evaluate(run.place))
  for name, status in (('board', None), ('begun', 'running')):
    (folder / name).mkdir()
    if status is None:
      board_runs.grid(folder / name)
    else:
      board_runs.write(folder / name, 'first', {}, 1000, 100, status=status, rows=1)
    board_page.Board(name, board_page.find([str(folder / name)]), folder / name / 'report.html').write()
  return {name: f'file://{folder}/{name}/report.html' for name in PAGES}


@pytest.mark.parametrize('name', PAGES)
def test_it_is_for_everyone(browser, pages, name):
  assert chromium.faults(browser, pages[name]) == []


@pytest.mark.parametrize('name', PAGES)
def test_the_keyboard_reaches_everything(browser, pages, name):
  with chromium.opened(browser, pages[name]) as (page, _):
    assert chromium.unreached(page) == []


@pytest.mark.parametrize('name', ['law', 'run', 'board'])
def test_marks_say_what_they_are_by_touch_and_by_keyboard(browser, pages, name):
  with chromium.opened(browser, pages[name], (390, 844)) as (page, _):
    tip, mark = page.locator('#tip'), page.locator('svg .hover[tabindex="0"]').first
    assert tip.is_hidden()
    mark.focus()
    first = tip.inner_text()
    assert tip.is_visible() and first
    page.keyboard.press('ArrowRight')
    assert tip.inner_text() != first
    page.keyboard.press('Escape')
    assert tip.is_hidden()
    page.evaluate('document.activeElement.blur()')
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.touchscreen.tap(box['x'] + box['width'] / 2 + 6, box['y'] + box['height'] / 2 + 6)  # beside it, as fingers do
    tip.wait_for(state='visible', timeout=5000)


@pytest.mark.parametrize('name, first', [
    ('law', 'One law is fitted '), ('groups', 'b reaches loss '), ('begun', 'begun: 0 of 1 '),
    ('board', 'swin reaches loss |vit reaches loss ')])
def test_the_headline_begins_with_a_capital_but_never_changes_a_name(browser, pages, name, first):
  with chromium.opened(browser, pages[name]) as (page, said):
    assert page.locator('h1').inner_text().startswith(tuple(first.split('|'))) and not said


def test_the_law_is_shown_without_its_irreducible_part_when_asked(browser, pages):
  with chromium.opened(browser, pages['law']) as (page, said):
    before = page.locator('svg').first.inner_html()
    page.get_by_role('button', name='minus irreducible').click()
    assert page.locator('svg').first.inner_html() != before and not said
    assert page.get_by_role('button', name='minus irreducible').get_attribute('aria-pressed') == 'true'


def test_what_the_page_says_of_another_size_is_what_the_law_says(browser, pages, laws):
  law, (n, d) = laws['law'][''], (3e9, 7e10)
  with chromium.opened(browser, pages['law']) as (page, said):
    for place, value in zip(page.locator('.asked input').all(), (n, d), strict=True):
      place.fill(str(value))
    values = page.locator('output tbody td:nth-child(2)').all_inner_texts()
    assert float(values[0]) == pytest.approx(law.fit.predict({'params': np.array([n]), 'examples': np.array([d])})[0],
                                             rel=2e-3)
    assert float(values[3].replace('e', 'e+')) == pytest.approx(6 * n * d, rel=1e-2)
    assert 'Extrapolated' in page.locator('output').inner_text()
    page.locator('.asked input').first.fill('many')
    assert 'Expected N from' in page.locator('output').inner_text() and not said


def test_a_filter_shows_some_of_the_points_and_says_how_to_fit_them(browser, pages):
  with chromium.opened(browser, pages['law']) as (page, said):
    dots = lambda: page.locator('svg').first.locator('circle').count()
    every = dots()
    page.locator('#filter select').first.select_option('recipe')
    page.locator('#filter select').last.select_option('a')
    assert dots() == every / 2 and "--where='recipe==\"a\"'" in page.locator('#filter').inner_text()
    assert page.evaluate('document.activeElement.tagName') != 'BODY' or not said
    page.locator('#filter select').first.select_option('')
    assert dots() == every and not said


def test_a_live_page_shows_what_has_changed_and_waits_when_paused(browser, tmp_path, monkeypatch):
  monkeypatch.setattr(board_page, '_SECONDS', 0.5)
  board_runs.grid(tmp_path)
  board = board_page.Board('mine', board_page.find([str(tmp_path)]), tmp_path / 'index.html')
  board.write(live=True)
  with chromium.opened(browser, f'file://{tmp_path}/index.html') as (page, said):
    row = page.locator('tr', has_text='vit-long')
    assert 'waiting' in row.inner_text()
    board_runs.write(tmp_path, 'vit-long', {'seed': 1}, 8000, 1600)
    board.write(live=True)
    row.get_by_text('finished').wait_for(timeout=20_000)
    page.get_by_role('button', name='pause').click()
    board_runs.write(tmp_path, 'vit-failed', {'seed': 2}, 8000, 1600)
    (tmp_path / 'vit-failed/events.jsonl').unlink()
    board.write(live=True)
    page.wait_for_timeout(1500)
    assert page.locator('tr', has_text='vit-failed').get_by_text('finished').count() == 0 and said == []


def test_pages_can_be_printed(browser, pages):
  with chromium.opened(browser, pages['law'], scheme='dark') as (page, _):
    page.emulate_media(media='print')
    assert page.pdf()[:4] == b'%PDF'
    ink, paper = page.evaluate('(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))')
    assert sum(map(int, ink[4:-1].split(','))) < 300 and paper in ('rgb(255, 255, 255)', 'rgba(0, 0, 0, 0)')
