"""Processes that were started with other configs, data or flags refuse to train, and say what differs."""

import time

import command_line
import jax
import pytest
from several_processes import finish, start
from test_processes import LINES

from vit_jax.errors import UserError
from vit_jax.parallel import processes


@pytest.mark.slow
@pytest.mark.parametrize('flags, said', [
    ('--config.seed=1', 'config.seed is 1 on process 1, and 0 on process 0'),
    ('--config.data.unique_examples=500', 'the train data is')], ids=['config', 'data'])
def test_two_that_differ_refuse(tmp_path, flags, said):
  recipe, begun = tmp_path / 'tiny.py', time.monotonic()
  recipe.write_text(command_line.recipe(*LINES))

  def command(address, index):
    joined = [f'--distributed={address}', '--num_processes=2', f'--process_id={index}']
    return ['-m', 'vit_jax.main', f'--config={recipe}', f'--workdir={tmp_path / "run"}', *joined,
            *([flags] if index else [])]

  started = start(2, command)
  codes, outputs = finish(started)
  assert codes == [1, 1] and time.monotonic() - begun < 120  # seconds, but for starting on a busy machine
  for _, err in outputs:
    assert 'the processes of this run do not agree' in err and said in err, err
  assert not (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_one_process_compares_with_nobody(monkeypatch):
  monkeypatch.setattr(processes, '_gathered', lambda text: pytest.fail('there is nobody to gather from'))
  assert processes.agree({'config.seed': '0'}) is None


def test_what_differs_is_named(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(processes, '_gathered', lambda text: [text, text, text.replace('"0"', '"1"')])
  with pytest.raises(UserError, match='config.seed is 1 on process 2, and 0 on process 0. .*the same command, code'):
    processes.agree({'config.seed': '0', 'code': 'abc'})


@pytest.mark.parametrize('error', [
    ValueError('UNKNOWN: Gloo all-reduce failed: [external/gloo/transport/tcp/pair.cc:547] Connection closed by peer'),
    RuntimeError('NCCL operation ncclAllReduce(...) failed: remote process exited or there was a network error.'),
    RuntimeError('UNAVAILABLE: The tasks have crashed. Use the task logs to find out what happened to them.'),
    jax.errors.JaxRuntimeError('INTERNAL: Program hung or a slice was reset'),
    jax.errors.JaxRuntimeError('DEADLINE_EXCEEDED: Barrier timed out')])
def test_a_lost_process_is_recognised_by_what_is_said(error):
  assert processes.is_loss(error)


@pytest.mark.parametrize('error', [
    UserError('the processes of this run do not agree'), MemoryError(), ValueError('invalid literal for int()'),
    KeyError('loss'), jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 10 bytes'),
    TypeError('unsupported operand'), FileNotFoundError('/data/gloomy-barrier/x.png'), BrokenPipeError('Broken pipe'),
    ValueError('mesh axes data, dcn: 3 devices'), RuntimeError('the compilation cache is unavailable'),
    ZeroDivisionError('division by zero')])
def test_other_errors_would_come_again(error):
  assert not processes.is_loss(error)
