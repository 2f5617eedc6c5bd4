"""The package as it is installed from a wheel, away from the clone; and what every command has in common."""

import os
import shutil
import subprocess
import sys

import pytest
from command_line import ON_CPU, ROOT

import vit_jax
from vit_jax import commands, completion, listing, recipe
from vit_jax.models import FAMILIES


@pytest.fixture(name='away', scope='module')
def _away(tmp_path_factory):
  """(a folder without the clone, what runs a command there with the wheel that is built here)."""
  if not shutil.which('uv'):
    pytest.skip('uv, which builds the wheel, is not installed')
  folder = tmp_path_factory.mktemp('away')
  uv = lambda *words: subprocess.run(['uv', *words], check=True, capture_output=True, text=True, cwd=folder)
  try:
    uv('build', '--quiet', '--wheel', '--out-dir', str(folder / 'wheel'), str(ROOT))
  except subprocess.CalledProcessError as error:
    if 'Failed to fetch' in error.stderr or 'client error' in error.stderr:
      pytest.skip('hatchling, which builds the wheel, cannot be fetched')
    raise AssertionError(error.stderr) from error
  wheel, = (folder / 'wheel').glob('*.whl')
  uv('pip', 'install', '--quiet', '--no-deps', '--python', sys.executable, '--target', str(folder / 'site'), str(wheel))
  environment = {key: value for key, value in ON_CPU.items() if key != 'PYTHONPATH'} | {
      'PYTHONPATH': str(folder / 'site')}

  def run(*words):
    code = 'import sys, vit_jax.__main__ as m; sys.argv[0] = "vit-jax"; m.main()'
    return subprocess.run([sys.executable, '-c', code, *words], cwd=folder, env=environment, capture_output=True,
                          text=True)
  return folder, run


def test_the_wheel_is_whole(away):
  folder, run = away
  inside = folder / 'site/vit_jax'
  for name in ('py.typed', 'drawing/page.html', 'inspection/run.js', 'scaling/law.js', 'launch/Dockerfile'):
    assert (inside / name).is_file(), name
  assert {path.stem for path in (inside / 'recipes').glob('*.py')} == {p.stem for p in ROOT.glob('configs/*.py')}
  assert (folder / 'site/bin/vit-jax').is_file()
  listed = run('list')
  assert listed.returncode == 0 and 'quickstart' in listed.stdout, listed.stderr
  assert run('--version').stdout == run('train', '--version').stdout == f'{vit_jax.__version__}\n'


@pytest.mark.slow
def test_a_recipe_by_name_trains_away_from_the_clone(away):
  folder, run = away
  trained = run('train', '--config=quickstart', '--config.train.steps=20', '--workdir=runs/first')
  assert trained.returncode == 0 and 'test accuracy' in trained.stdout, trained.stderr
  assert run('samples', 'pictures').returncode == 0
  assert 'vit-jax predict runs/first PICTURE_OR_FOLDER' in trained.stdout
  predicted = run('predict', 'runs/first', 'pictures/unseen', '--format=csv', '--top=1')
  assert len(predicted.stdout.splitlines()) == 11, predicted.stderr
  plan = run('sweep', '--sweep=digits_law', '--dry_run')
  assert plan.returncode == 0 and ' runs, ' in plan.stdout, plan.stderr


def _run(*words, **options):
  return subprocess.run([sys.executable, '-m', 'vit_jax', *words], capture_output=True, text=True, cwd=ROOT,
                        env=ON_CPU | {'PYTHONPATH': str(ROOT)}, **options)


def test_without_a_command_it_says_what_there_is():
  said = _run()
  assert said.returncode == 0 and all(f'\n  {name} ' in said.stdout for name in commands.COMMANDS)
  misspelt = _run('trian')
  assert misspelt.returncode == 1 and misspelt.stderr == "error: 'trian': no such command; did you mean 'train'?\n"


@pytest.mark.parametrize('command', commands.COMMANDS)
def test_each_command_is_a_program(command):
  path = ROOT / 'vit_jax' / f'{commands.COMMANDS[command][0].replace(".", "/")}.py'
  assert "if __name__ == '__main__':" in path.read_text()


@pytest.mark.parametrize('program, typed', [('vit_jax', 'python -m vit_jax convert'), ('vit_jax.convert',
                                                                                'python -m vit_jax.convert')])
def test_messages_write_commands_as_they_are_typed(program, typed):
  words = ['convert'] if program == 'vit_jax' else []
  said = subprocess.run([sys.executable, '-m', program, *words], capture_output=True, text=True, cwd=ROOT, env=ON_CPU)
  assert said.returncode == 1 and f': {typed} SRC OUT ' in said.stderr


def test_help_shows_all_flags_of_the_command():
  said = _run('train', '--help')
  for flag in ('--config=', '--evaluate[=', '--report[=', '--workdir=', '--print_config', '--split=test|val|train'):
    assert f'\n  {flag}' in said.stdout, flag
  assert said.returncode == 0 and '--config.KEY=VALUE' in said.stdout and '--pdb' not in said.stdout
  assert all(len(line) <= 120 for line in said.stdout.splitlines())


def test_importing_the_package_is_cheap():
  code = 'import sys, vit_jax; print(sorted(m for m in sys.modules if m.split(".")[0] in ("jax", "numpy", "flax")))'
  assert subprocess.check_output([sys.executable, '-c', code], text=True, cwd=ROOT).strip() == '[]'


def test_recipes_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  own = recipe.own_folder() / 'quickstart.py'
  assert recipe.located('quickstart') == str(own) and recipe.located('deit_s16:distilled').endswith('.py:distilled')
  (tmp_path / 'configs').mkdir()
  shutil.copy(own, tmp_path / 'configs/quickstart.py')  # a file of ./configs comes first
  assert recipe.located('quickstart') == os.path.join('configs', 'quickstart.py')
  assert recipe.located('elsewhere/quickstart.py') == 'elsewhere/quickstart.py'
  assert recipe.with_path(['--config', 'quickstart', '--seed=1', '--config']) == [
      '--config=configs/quickstart.py', '--seed=1', '--config']
  with pytest.raises(recipe.UserError, match="no recipe quickstrat; did you mean 'quickstart'"):
    recipe.load_recipe('quickstrat')


def test_the_list_names_recipes_with_their_first_words():
  rows = {name: (words, has_sweep) for name, words, has_sweep in listing.recipes()}
  assert rows['deit_s16[:distilled|runlocal]'][0].startswith('DeiT-S on ImageNet-1k: Touvron et al. 2021')
  assert [name for name, (_, has_sweep) in rows.items() if has_sweep] == ['digits_law']


def test_sizes_are_counted():
  counted = dict((size, rest) for size, *rest in listing.sizes('mixer'))
  assert counted.keys() == FAMILIES['mixer'].sizes.keys()
  params, forward = counted['B/16']
  assert round(params / 1e6) == 60 and 12 < forward / 1e9 / 2 < 13  # 12.6 G multiply-adds


@pytest.mark.parametrize('line, expected', [
    ('vit-jax tr', ['train']), ('vit-jax train --li', ['--list_changes']),
    ('vit-jax train --config=qui', ['quickstart']), ('vit-jax sweep --sweep=digits', ['digits_law']),
    ('vit-jax law --bo', ['--bootstrap=']), ('vit-jax law --as', ['--assume=']),
    ('vit-jax train runs/', []), ('vit-jax nothing --x', [])])
def test_completion(line, expected):
  assert completion.words(line) == expected


@pytest.mark.skipif(not shutil.which('bash'), reason='no bash')
def test_bash_takes_the_completion():
  script = subprocess.check_output([sys.executable, '-m', 'vit_jax', 'completion', 'bash'], text=True, cwd=ROOT)
  asked = f'{script}\nCOMP_LINE="vit-jax com"; COMP_POINT=11; _vit_jax; printf "%s\\n" "${{COMPREPLY[@]}}"'
  done = subprocess.run(['bash', '-c', asked], capture_output=True, text=True, cwd=ROOT,
                        env=ON_CPU | {'PYTHONPATH': str(ROOT)})
  assert sorted(done.stdout.split()) == ['compare', 'completion']
