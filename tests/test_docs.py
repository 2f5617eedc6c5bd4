"""Pages are true: commands exist and take their flags, links lead somewhere, the output shown is today's."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import command_line
import in_turn
import pages
import pytest
from command_line import ROOT
from models import conformance
from rich.console import Console

from vit_jax import config, models, provenance, testing
from vit_jax import recipe as recipe_lib
from vit_jax.errors import UserError
from vit_jax.rehearsal import compiler
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

COMMANDS = [command for page in pages.PAGES for command in pages.page_commands(page)]
DOCSTRINGS = [command for source in pages.SOURCES for command in pages.docstring_commands(source)]
# Programs that are not ours and must be known to be such, and ours without a command.
OTHERS = {'docker', 'gcloud', 'pip', 'uv', 'pytest', 'kubectl', 'sky', '.', 'venv', 'vit-jax'}
QUICK = set(testing.OBJECTIVE_CHECKS) - {testing.resumes_as_if_undisturbed}
GENERATED = ('experiments/fashion_mnist_law/next.py',)  # its docstring is the command that wrote it
# docs/new_family.md and docs/objectives.md have the reader write them
TO_COME = {'vit_jax/models/patch_mlp.py', 'configs/patch_mlp_digits.py', 'rotation.py', 'rotation_digits.py'}
# What `run` blocks are shortened by.
TINY = ('--config.train.epochs=0', '--config.train.steps=20', '--config.schedule.warmup_steps=2')
SHORTER = {'vit_jax.law': ('--bootstrap=20',), 'vit_jax.sweep': ('--dry_run',),
           'experiments/finetuning/shoes.py': ('--pretrain_steps=220',)}
FASHION_MNIST = pathlib.Path('/usr/share/datasets/fashion-mnist')
ENVIRONMENT = command_line.ON_CPU | {'PYTHONPATH': str(ROOT)}


# What a page says


def test_readme_is_short():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


def test_readme_has_the_two_commands_that_others_rely_on():
  lines = (ROOT / 'README.md').read_text().splitlines()
  assert lines.count('pip install -q uv && uv run --extra test pytest') == 1  # .ci/run takes it from there
  assert lines.count('pip install -q uv && uv run python -m vit_jax.main --config=configs/quickstart.py') == 1


@pytest.mark.parametrize('page', pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page):
  for target in pages.links(page):
    if target.startswith(('http://', 'https://')):
      continue
    file, _, anchor = target.partition('#')
    path = (page.parent / file).resolve() if file else page
    assert path.exists() and path.is_relative_to(ROOT), f'{target}: nothing there'
    if anchor:
      assert anchor in pages.anchors(path), f'{target}: no such heading'


@pytest.mark.parametrize('page', pages.PAGES, ids=pages.name)
def test_files_that_are_named_exist(page):
  missing = {file for file in pages.mentioned_files(page) if not (ROOT / file.rstrip('.')).exists()}
  assert missing <= TO_COME


@pytest.mark.parametrize('page', pages.PAGES, ids=pages.name)
def test_prose_fits_120_columns(page):
  blocks = ''.join(block.text for block in pages.blocks(page) if block.language not in ('bash', 'python'))
  long = [line for line in page.read_text().splitlines()
          if len(line) > 120 and not line.startswith('|') and line not in blocks]
  assert not long


def test_every_page_is_linked_from_readme():
  linked = {(ROOT / target.partition('#')[0]).resolve() for target in pages.links(ROOT / 'README.md')}
  assert linked >= set(ROOT.glob('docs/*.md')) and ROOT / 'experiments/LOG.md' in linked


def test_readmes_tree_is_that_of_the_repository():
  tree = next(block.text for block in pages.blocks(ROOT / 'README.md') if block.text.startswith('configs/'))
  top = re.findall(r'^([\w.]+/?) ', tree, re.MULTILINE)
  inside = re.findall(r'^  ([\w.]+/?) ', tree, re.MULTILINE)
  assert all((ROOT / entry).exists() for entry in top)
  assert all((ROOT / 'vit_jax' / entry).exists() for entry in inside)
  rooms = {f'{path.parent.name}/' for path in (ROOT / 'vit_jax').glob('*/__init__.py')}
  assert rooms == {entry for entry in inside if entry.endswith('/')}


def test_run_folders_that_are_shown_have_their_recipes_hash():
  shown = {match for page in (ROOT / 'README.md', *ROOT.glob('docs/*.md'))
           for match in re.findall(r'runs/(quickstart|fashion_mnist)-([0-9a-f]{10})\b', page.read_text())}
  assert shown
  for recipe, digest in shown:
    assert run_config.run_hash(run_config.cast(config.load_recipe(f'{ROOT}/configs/{recipe}.py'))) == digest


def test_log_has_dated_entries_with_evidence():
  entries = re.split(r'^## ', (ROOT / 'experiments/LOG.md').read_text(), flags=re.MULTILINE)[1:]
  assert len(entries) >= 12
  dates = [re.match(r'(\d{4}-\d\d-\d\d) .+ \(negative\)\n', entry)[1] for entry in entries]
  assert dates == sorted(dates, reverse=True)
  for entry in entries:
    assert re.search(r'\*\*Evidence\.\*\* (.*\n)*.*(\]\(|[Cc]ommit [0-9a-f]{7})', entry), entry


# Commands: what they name exists


def complaints(commands):
  """{index: what is wrong} of [(module, arguments)], as the programs themselves parse them."""
  done = subprocess.run([sys.executable, str(ROOT / 'tests/command_checker.py')], input=json.dumps(commands), cwd=ROOT,
                        env=ENVIRONMENT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return {int(i): text for i, text in json.loads(done.stdout).items()}


def test_commands_are_parsed_by_their_programs():
  ours = [command for command in COMMANDS + DOCSTRINGS if command.program.startswith('vit_jax.')]
  assert len(ours) > 50
  found = complaints([(command.program, command.arguments) for command in ours])
  wrong = [f'{ours[i].where}: {ours[i].words}\n  {text}' for i, text in found.items()
           if 'the sweep of the CNN goes first' not in text]
  assert not wrong, '\n'.join(wrong)


def test_wrong_commands_are_noticed():
  quickstart = '--config=configs/quickstart.py'
  found = complaints([('vit_jax.main', flags) for flags in (
      [quickstart], [quickstart, '--workdirr=x'], [quickstart, '--config.model.widht=1'], ['--config=configs/none.py'],
      [quickstart, '--config.model.width=wide'])] + [('vit_jax.law', ['runs', '--bootstrap=many'])])
  assert found.keys() == {1, 2, 3, 4, 5}, found


def test_programs_and_files_exist():
  for command in COMMANDS + DOCSTRINGS:
    place = f'{command.where}: {command.words}'
    if command.program.startswith('vit_jax.'):
      assert importlib.util.find_spec(command.program), place
    elif '/' in command.program and '=' not in command.program:
      assert (ROOT / command.program).is_file(), place
    else:
      assert command.program in OTHERS or '=' in command.program, place  # NAME=VALUE
    for word in command.arguments:
      path = word.partition('=')[2] if word.startswith('--') else word
      if path.startswith(('configs/', 'experiments/', 'tests/')):
        assert (ROOT / path.partition(':')[0]).exists(), place


def test_flags_of_scripts_are_declared():
  for command in COMMANDS + DOCSTRINGS:
    if command.program.endswith('.py'):
      path = ROOT / command.program
      known = pages.declared_flags(path)
      if path.name == 'shoes.py':
        known |= pages.declared_flags(path.with_name('transfer.py'))
      given = {word[2:].partition('=')[0] for word in command.arguments if word.startswith('--')}
      assert given <= known, f'{command.where}: {command.words}'


@pytest.mark.parametrize('page', pages.PAGES, ids=pages.name)
def test_flags_in_prose_exist(page):
  """Of config keys, those of a ViT."""
  files = [*(ROOT / 'vit_jax').glob('*.py'), ROOT / 'vit_jax/data/prepare.py', *page.parent.glob('*.py'),
           *page.parent.glob('*.sh'), *(ROOT / 'tests').glob('*.py')]
  known = set().union(*map(pages.declared_flags, files)) | {'config', 'extra', 'help'}
  for flag in pages.mentioned_flags(page):
    if flag.startswith('config.'):
      recipe_lib.check_key(config.defaults('vit'), flag.removeprefix('config.'))
    else:
      assert flag in known, f'--{flag}'


def test_no_command_writes_over_committed_results():
  for command in COMMANDS + DOCSTRINGS:
    if command.where not in GENERATED:
      into = [word for word in command.arguments if re.match(r'--(out|workdir|write_config)=(experiments|tests)', word)]
      assert not into and '>' not in command.arguments, f'{command.where}: {command.words}'


# Commands: what they do


@pytest.fixture
def reader(tmp_path, monkeypatch):
  """A folder as a reader has it, a clone with no runs yet."""
  for folder in ('configs', 'experiments', 'tests'):
    (tmp_path / folder).symlink_to(ROOT / folder)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def follow(page, marks):
  """Does what the marked blocks of a page say, a little shorter, and compares what it shows with what is printed."""
  blocks = pages.blocks(page)
  for i, block in enumerate(blocks):
    if block.mark not in marks:
      continue
    if block.language == 'python':
      subprocess.run([sys.executable, '-c', block.text], check=True, env=ENVIRONMENT)
      continue
    printed = '\n'.join(start(command) for command in pages.commands(block.text, block.where))
    for shown in blocks[i + 1:]:
      if shown.language:
        break
      missing = [label for label in labels(shown.text) if label not in labels(printed)]
      assert not missing, f'{shown.where}: the output has no lines that begin so: {missing}\n{printed}'


def start(command):
  """What a command prints."""
  if not command.program.startswith(('vit_jax.', 'experiments/')):
    return ''
  shorter = SHORTER.get(command.program, ())
  if command.program == 'vit_jax.main' and any(word.startswith('--config=') for word in command.arguments):
    shorter = TINY
  how = ['-m', command.program] if command.program.startswith('vit_jax.') else [command.program]
  done = subprocess.run([sys.executable, *how, *command.arguments, *shorter], capture_output=True, text=True,
                        env=ENVIRONMENT)
  assert done.returncode == 0, f'{command.where}: {command.words}\n{done.stdout}{done.stderr}'
  return done.stdout


def labels(text):
  """How lines begin, up to a gap or the first number; hashes and rules are alike in all."""
  text = re.sub(r'runs/\w+-[0-9a-f]{10}', 'RUN', text)
  starts = (re.split(r' {2,}|[\d,:]', re.sub('─+', '─', line).strip())[0].strip() for line in text.splitlines())
  return [start for start in starts if start not in ('', '...')]


@pytest.mark.slow
def test_a_walk_from_readme_to_weights(reader):
  follow(ROOT / 'README.md', ['run'])
  trained, = (reader / 'runs').iterdir()
  shown = re.search(r'runs/(quickstart-[0-9a-f]{10})', (ROOT / 'README.md').read_text())[1]
  (reader / 'runs' / shown).symlink_to(trained.name)  # it has the name of its short length
  follow(ROOT / 'docs/training.md', ['run'])
  follow(ROOT / 'docs/weights.md', ['run'])
  assert {'bundle', 'timm', 'model.stablehlo', 'smaller'} <= {path.name for path in (reader / 'runs').iterdir()}


def test_laws_page(reader):
  follow(ROOT / 'docs/laws.md', ['run'])
  assert (reader / 'runs/published/law.json').is_file()
  sweep = {}
  exec(next(block.text for block in pages.blocks(ROOT / 'docs/laws.md') if block.language == 'python'), sweep)
  assert len(sweep['get_sweep']().runs) == 27


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason='Fashion-MNIST is not installed here')
def test_laptop_sweep_is_planned_and_the_next_run_written(reader):
  page = ROOT / 'docs/laws.md'
  block = next(block for block in pages.blocks(page) if block.mark == 'plan')
  assert '16 runs' in start(pages.commands(block.text, block.where)[0])
  follow(page, ['slow'])


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason='Fashion-MNIST is not installed here')
def test_fine_tuning_page(reader):
  follow(ROOT / 'docs/fine_tuning.md', ['slow'])


@pytest.mark.slow
def test_objectives_page(reader):
  follow(ROOT / 'docs/objectives.md', ['run'])
  assert (reader / 'runs/mae_probed/run.json').is_file()


@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
def test_tpus_page(reader):
  follow(ROOT / 'docs/tpus.md', ['slow'])


@pytest.mark.slow
def test_mistakes_are_answered_as_shown():
  shown = next(block.text for block in pages.blocks(ROOT / 'docs/training.md') if block.mark == 'mistakes')
  flags = [['--config.model.widht=64'], ['--config.model.patch_size=3'],
           ['--config.train.steps=10', '--config.train.examples=640']]
  said = [command_line.run('main', '--config=configs/quickstart.py', *given).stderr for given in flags]
  assert ''.join(said) == shown


@pytest.fixture
def patch_mlp(monkeypatch):
  """{mark: text} of docs/new_family.md, whose family is there as if a reader had written it."""
  texts = {block.mark: block.text for block in pages.blocks(ROOT / 'docs/new_family.md')}
  module = types.ModuleType('vit_jax.models.patch_mlp')
  monkeypatch.setitem(sys.modules, module.__name__, module)
  exec(texts['family'], module.__dict__)
  table = eval('{' + texts['line'] + '}', {'patch_mlp': module})
  monkeypatch.setitem(models.FAMILIES, 'patch_mlp', table['patch_mlp'])
  return texts


def test_a_family_written_as_the_page_says_keeps_the_contract(patch_mlp):
  case = eval('{' + patch_mlp['case'] + '}', {'_case': lambda family, shape, **fields: conformance.Case(
      family, models.FAMILIES[family].config(**fields), shape)})['patch_mlp']
  for check in conformance.CHECKS:
    check(case)


def test_a_family_of_another_package_is_taken_by_its_path(patch_mlp, tmp_path, monkeypatch):
  (tmp_path / 'my_package').mkdir()
  (tmp_path / 'my_package/mlp.py').write_text(patch_mlp['family'])
  monkeypatch.syspath_prepend(tmp_path)
  c = config.defaults('my_package.mlp:FAMILY')
  c.model.width, c.data.batch_size, c.train.steps = 32, 64, 10
  run = run_lib.prepare(run_config.cast(c))
  assert run.config.model.width == 32 and run.record()['config']['family'] == 'my_package.mlp:FAMILY'
  assert provenance.code([tmp_path / 'my_package/mlp.py']) == run.code != provenance.code()  # its code is the run's too


@pytest.mark.parametrize('path, message', [
    ('my_nothing.mlp:FAMILY', 'cannot import my_nothing.mlp'),
    ('vit_jax.models.vit:FAMLY', "has no 'FAMLY'"),
    ('vit_jax.models.vit:Config', 'expected a vit_jax.models.family.Family'), ('vitt', "did you mean 'vit'")])
def test_a_path_without_a_family_is_refused(path, message):
  with pytest.raises(UserError, match=re.escape(message)):
    config.defaults(path)


@pytest.mark.slow
def test_the_recipe_of_a_new_family_trains(patch_mlp, tmp_path):
  recipe = {}
  exec(patch_mlp['recipe'], recipe)
  c = recipe['get_config']()
  c.train.epochs, c.train.steps = 0, 60
  run = run_lib.prepare(run_config.cast(c))
  results = loop.train(run, tmp_path, Display(Console(quiet=True)))
  assert results['test']['accuracy'] > 0.3  # chance is 0.1


@pytest.fixture
def rotation(tmp_path, monkeypatch):
  """A folder with the objective and the recipe of docs/objectives.md, as if a reader had written them."""
  texts = {block.mark: block.text for block in pages.blocks(ROOT / 'docs/objectives.md')}
  (tmp_path / 'rotation.py').write_text(texts['objective'])
  (tmp_path / 'rotation_digits.py').write_text(texts['recipe'])
  assert texts['objective'].count('\n') <= 60
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield tmp_path
  sys.modules.pop('rotation', None)


@pytest.mark.parametrize('check', in_turn.slow_but(QUICK, testing.OBJECTIVE_CHECKS), ids=lambda check: check.__name__)
def test_an_objective_written_as_the_page_says_keeps_the_contract(rotation, check):
  c = config.load_recipe('rotation_digits.py')
  c.data.batch_size = 8
  check(c, rotation)


@pytest.mark.slow
def test_the_recipe_of_a_new_objective_trains(rotation):
  c = config.load_recipe('rotation_digits.py')
  c.train.epochs, c.train.steps = 0, 100
  run = run_lib.prepare(run_config.cast(c))
  results = loop.train(run, rotation / 'run', Display(Console(quiet=True)))
  assert results['test']['accuracy'] > 0.4  # chance is 0.25
  code = run.code
  (rotation / 'rotation.py').write_text((rotation / 'rotation.py').read_text() + '\nX = 1\n')
  assert run_lib.prepare(run_config.cast(c)).code != code  # a run knows by which objective it was computed


@pytest.mark.slow
def test_a_new_objective_sweeps_and_gives_a_law(rotation):
  (rotation / 'lengths.py').write_text("""
from vit_jax import sweeps

def get_sweep():
  runs = sweeps.product(sweeps.axis('train.steps', 60, 120, 240, 480), sweeps.axis('evaluate.probe', 60))
  return sweeps.Sweep('rotation_digits.py', runs)
""")
  env = command_line.ON_CPU | {'PYTHONPATH': os.pathsep.join((str(ROOT), str(rotation)))}
  for command in (('sweep', '--sweep=lengths.py', '--workdir=runs'),
                  ('law', 'runs', '--form=power', '--x=examples', '--out=law')):
    done = command_line.run_process(*command, env=env, cwd=rotation)
    assert done.returncode == 0, done.stderr
  assert json.loads((rotation / 'law/law.json').read_text())['n'] == 4


def test_shell_is_read_as_a_shell_does():
  text = ('for k in a b; do\n  uv run --extra hub python -m vit_jax.law runs/$k \\\n    > x.log\n'
          'done && kubectl apply -f x')
  assert [command.words for command in pages.commands(text, 'here')] == [
      "vit_jax.law runs/a '>' x.log", "vit_jax.law runs/b '>' x.log", 'kubectl apply -f x']
  assert labels('step 3/5, loss 2\nuse it     x\n...') == ['step', 'use it']
