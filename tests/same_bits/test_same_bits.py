"""What same_bits.py compares is what two runs left, and it says where they part."""

import importlib.util
import pathlib

import command_line

_FILE = pathlib.Path(__file__).with_name('same_bits.py')
_SPEC = importlib.util.spec_from_file_location('same_bits', _FILE)
same_bits = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(same_bits)


def test_a_changed_bit_and_a_changed_row_are_named(tmp_path, capsys):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(command_line.recipe('c.train.steps, c.system.log_every, c.model.depth = 2, 1, 1'))
  done = command_line.run('main', f'--config={recipe}', f'--workdir={tmp_path / "run"}')
  assert done.returncode == 0, done.stderr
  left = same_bits.end(tmp_path / 'run', '')
  arrays = [name for name in left if name.startswith('array')]
  assert len(arrays) > 30 and left['metrics.jsonl'].count('\n') == 5  # two of training, two of val, one of test

  assert same_bits.report(['vit'], {'old': {'vit': left}, 'new': {'vit': dict(left)}}) == 0
  assert f'{len(left)} equal' in capsys.readouterr().out
  moved = left | {arrays[3]: '0' * 64, 'metrics.jsonl': left['metrics.jsonl'].replace('"step": 2', '"step": 3', 1)}
  assert same_bits.report(['vit'], {'old': {'vit': left}, 'new': {'vit': moved}}) == 1
  said = capsys.readouterr().out
  assert '2 differ' in said and arrays[3] in said and '"step": 3' in said


def test_a_run_that_fails_is_no_proof(capsys):
  assert same_bits.report(['vit'], {'old': {'vit': {'failed': 'x'}}, 'new': {'vit': {'failed': 'x'}}}) == 1
  assert 'FAILED' in capsys.readouterr().out
