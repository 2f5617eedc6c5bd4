"""A length on the command line wins over the recipe's, and the warm-up fits into it."""

import command_line
import pytest

from vit_jax import recipe, records
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import run
from vit_jax.training import start as start_lib


def _config(**length):
  c = recipe.load_recipe('quickstart')
  c.schedule.warmup_steps, c.train.epochs, c.data.batch_size = 50, 0, 32
  c.train.update(length)
  return run_config.cast(c)


@pytest.mark.parametrize('length, steps', [({'steps': 40}, 40), ({'examples': 1280}, 40), ({'epochs': 1.0}, 41),
                                           ({'steps': 5}, 5)])
def test_a_warm_up_that_does_not_fit_takes_a_tenth(length, steps):
  said = []
  fitted = start_lib.fitted(_config(**length), {f'train.{name}' for name in length}, said.append)
  assert fitted.schedule.warmup_steps == steps // 10
  assert said == [f'note: the warm-up of 50 steps does not fit into {steps}: it takes {steps // 10} '
                  f'(--config.schedule.warmup_steps={steps // 10})']
  assert run.prepare(fitted).steps == steps


@pytest.mark.parametrize('length, given', [
    ({'steps': 51}, ['train.steps']),  # it fits
    ({'steps': 40}, []),  # the recipe's own length
    ({'steps': 40}, ['train.steps', 'schedule.warmup_steps']),  # both are given
    ({'flops': 1e9}, ['train.flops'])])
def test_all_else_stays_as_it_is(length, given):
  config = _config(**length)
  assert start_lib.fitted(config, given, pytest.fail) is config


def test_what_does_not_fit_is_refused():
  with pytest.raises(UserError, match='must be below the 40 steps'):
    run.prepare(_config(steps=40))


@pytest.mark.slow
def test_a_length_given_by_one_flag_starts_and_is_found_again(tmp_path):
  path = tmp_path / 'tiny.py'
  path.write_text(command_line.recipe('c.train.epochs, c.schedule.warmup_steps = 80, 50'))
  start = lambda *flags: command_line.run('main', f'--config={path}', f'--workdir={tmp_path / "run"}', *flags)
  done = start('--config.train.steps=20')
  assert done.returncode == 0 and 'note: the warm-up of 50 steps does not fit into 20: it takes 2' in done.stdout
  config = records.read_run(tmp_path / 'run')['config']
  assert (config['train']['steps'], config['train']['epochs'], config['schedule']['warmup_steps']) == (20, 0, 2)
  again = start('--config.train.steps=20', '--evaluate')  # finds the run by what it became
  assert again.returncode == 0 and 'test of digits' in again.stdout, again.stderr
  changes = start('--list_changes', '--config.train.steps=20')
  assert changes.stdout.splitlines()[:2] == ['schedule.warmup_steps: 50 -> 2', 'train.steps: None -> 20']
  of_run = start(f'--list_changes={tmp_path / "run"}')
  assert of_run.stdout == changes.stdout
  two = start('--config.train.steps=20', '--config.train.examples=40')
  assert two.returncode == 1 and 'give exactly one of' in two.stderr


def test_a_printed_config_has_what_the_flags_say(tmp_path):
  said = command_line.run('main', '--config=quickstart', '--config.model.width=32', '--print_config=recipe')
  path = tmp_path / 'printed.py'
  path.write_text(said.stdout)
  printed = run_config.cast(recipe.load_recipe(path))
  asked = recipe.load_recipe('quickstart')
  asked.model.width = 32
  assert printed == run_config.cast(asked)
  wrong = command_line.run('main', '--config=quickstart', '--print_config=json')
  assert wrong.returncode == 1 and wrong.stderr == 'error: --print_config=json: must be tree or recipe\n'
