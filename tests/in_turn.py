"""Which slow tests run: none of them, all, or those whose turn it is.

    pytest                  all that are quick
    pytest --slow=turn      and the slow ones of the rooms that changed, and a fifth of the others
    pytest --slow=all       everything
    pytest -m slow          the slow ones alone; one that is named as FILE::TEST runs too

Of five commits in a row each slow test has its turn at one: where the number of the commit and the hash of the test's
name are equal modulo 5. What changed is what `git diff` names between HEAD's first parent, or --since=COMMIT, and the
working tree.
"""

import hashlib
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TURNS = 5
# Tests at the top of tests/ are of the programs; what these are made of is too much to run all for each change. Places
# are in vit_jax/.
ROOMS_OF_FILES = {
    'test_main.py': ('main', 'cli', 'survival', 'training/run.py', 'training/loop.py'),
    'test_plan.py': ('plan', 'rehearsal'),
    'test_figures.py': ('rehearsal', 'models', 'layers', 'training/step.py', 'parallel', 'objectives/pair_loss.py'),
    'test_finetune_folder.py': ('transfer', 'interop', 'predict', 'convert'),
    'test_predict.py': ('predict', 'inspection'),
    'test_convert.py': ('convert', 'interop'),
    'test_sweep.py': ('sweep', 'sweeps'),
    'test_api.py': ('api', 'outcomes', 'shown'),
    'test_pages_in_browser.py': ('drawing', 'scaling/law.js', 'scaling/law_figure.js', 'inspection/run.js',
                                 'inspection/run_page.py', 'sweeps/board.js', 'sweeps/board_page.py'),
    'test_site.py': ('../docs', '../mkdocs.yml'),
    'test_notebooks.py': ('api', 'outcomes', 'shown', '../docs/notebooks'),
}
ROOMS_OF_FOLDERS = {'faults': ('survival', 'checkpoint')}


def slow_but(quick, cases) -> list:
  """The cases of a parametrized test of one argument; all but those in `quick` are slow."""
  return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def addoption(parser) -> None:
  parser.addoption('--slow', choices=['none', 'turn', 'all'], default='none', help='which slow tests run')
  parser.addoption('--since', default='HEAD~1', metavar='COMMIT', help='with --slow=turn: rooms changed since then')


def deselect(config, items: list[pytest.Item]) -> None:
  """Takes the slow tests that are not to run out of `items`; those asked for by name or by -m stay."""
  which = config.getoption('slow')
  named = re.search(r'(?<!not )\bslow\b', config.option.markexpr or '')
  if which == 'all' or named or any('::' in argument for argument in config.args):
    return
  chosen = choose_now(config.getoption('since')) if which == 'turn' else lambda nodeid: False
  runs = lambda item: not item.get_closest_marker('slow') or chosen(item.nodeid)
  config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
  items[:] = filter(runs, items)


def choose_now(since: str):
  """chosen(nodeid) for the commit that is checked out; everything, where git does not answer."""
  count, changed = _git('rev-list', '--count', 'HEAD'), _git('diff', '--name-only', since)
  if count is None or changed is None:
    return lambda nodeid: True
  return lambda nodeid: has_turn(nodeid, int(count)) or is_of_changed(nodeid, changed.split())


def has_turn(nodeid: str, count: int) -> bool:
  """Whether it is the test's turn at the commit of that number."""
  return int(hashlib.sha256(nodeid.encode()).hexdigest(), 16) % TURNS == count % TURNS


def is_of_changed(nodeid: str, changed: list[str]) -> bool:
  """Whether a changed file is the test's own, or in a room that it is a test of."""
  path = nodeid.partition('::')[0]
  folder, _, file = path.removeprefix('tests/').rpartition('/')
  rooms = ROOMS_OF_FOLDERS.get(folder, (folder,)) if folder else ROOMS_OF_FILES.get(
      file, (file.removeprefix('test_').removesuffix('.py'),))
  places = [room.removeprefix('../') if room.startswith('../') else f'vit_jax/{room}' for room in rooms]
  return any(other == path or other.startswith(f'tests/{folder}/') and bool(folder) or any(
      other in (place, f'{place}.py') or other.startswith(f'{place}/') for place in places) for other in changed)


def _git(*words):
  try:
    return subprocess.run(['git', '-C', ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
