"""What comes from files and data never reaches a terminal as a control character; printed commands are quoted."""

import contextlib
import importlib
import io
import shlex

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vit_jax import cli, durable, records
from vit_jax.console import Console
from vit_jax.errors import UserError
from vit_jax.objectives.classify import Classify
from vit_jax.printable import printable
from vit_jax.sweeps import display as sweep_display
from vit_jax.training import display as run_display

predict = importlib.import_module('vit_jax.predict')  # the command; the package's attribute is the function

# A clipboard write (OSC 52), a colour, a carriage return, a bell, a bidirectional override, C1 codes, a surrogate
EVIL = 'cat\x1b]52;c;cm0gLXJm\x07\x1b[31m\r\x08\x9b2J\u202egnp.exe\u2066\u200b\udcff\x7f'
SPELLED = printable(EVIL)


def _is_safe(text):
  return not any(not c.isprintable() and c != '\n' for c in text)


def test_control_characters_are_spelled_out():
  assert _is_safe(SPELLED) and SPELLED.startswith("cat\\x1b]52;c;cm0gLXJm\\x07\\x1b[31m\\r\\x08\\x9b2J\\u202egnp.exe")
  assert printable('naïve 日本語 😀 [bold]') == 'naïve 日本語 😀 [bold]'
  assert printable('two\nlines') == 'two\\nlines' and printable('two\nlines', keep='\n') == 'two\nlines'


@pytest.mark.parametrize('thing', [EVIL, Text(EVIL), Text('x', style='bold') + Text(EVIL)])
@pytest.mark.parametrize('terminal', [False, True])
def test_the_console_spells_them_out_wherever_they_are(thing, terminal):
  out = io.StringIO()
  console = Console(file=out, width=200, force_terminal=terminal, color_system=None, legacy_windows=False)
  table = Table(title=thing, caption=thing)
  table.add_column(thing)
  table.add_row(thing)
  for what in (thing, table):
    console.print(what)
  console.rule(thing)
  assert _is_safe(out.getvalue()) and out.getvalue().count('cat\\x1b]52;') >= 4, out.getvalue()


def test_rich_can_still_move_the_cursor_for_its_bars(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')  # a dumb one has no cursor to move
  out = io.StringIO()
  with Progress(console=Console(file=out, force_terminal=True, width=80)) as bars:
    bars.add_task('busy', total=1)
  assert '\x1b[2K' in out.getvalue() and 'busy' in out.getvalue()


def test_markup_and_emoji_codes_in_names_are_printed_as_they_are():
  out = io.StringIO()
  table = Table('column')
  table.add_row('[red]:cat:[/red]')
  Console(file=out, width=80).print(table)
  assert '[red]:cat:[/red]' in out.getvalue()


def test_errors_of_every_command(capsys, monkeypatch):
  def fail():
    raise UserError(f'{EVIL}: no such file\nsecond line')
  monkeypatch.setattr(cli.app, 'run', lambda *_, **__: fail())
  with pytest.raises(SystemExit, match='1'):
    cli.run(fail)
  err = capsys.readouterr().err
  assert err == f'error: {SPELLED}: no such file\nsecond line\n'


def test_progress_without_a_terminal(capsys):
  with cli.Progress() as progress:
    progress(f'scoring {EVIL}, about 1 s')
  assert _is_safe(capsys.readouterr().err)


@pytest.mark.parametrize('terminal', [False, True])
def test_predictions(capsys, monkeypatch, terminal):
  monkeypatch.setattr('sys.stdout.isatty', lambda: terminal)
  evil = EVIL.replace('\udcff', '')
  for name in predict._WRITERS if terminal else ('table', 'json'):
    for columns in (predict._CLASSES, predict._TEXTS):
      predict._WRITERS[name](columns)(evil, [(evil, 0.5)])
  out = capsys.readouterr().out.replace('\x1b[1m', '').replace('\x1b[0m', '')  # Rich's own, for bold names
  assert _is_safe(out) and 'cat' in out


def test_csv_in_a_file_keeps_names_as_they_are():
  with contextlib.redirect_stdout(io.StringIO()) as out:
    predict._csv(predict._CLASSES)('path', [(EVIL, 0.5)])
  assert EVIL in out.getvalue().replace('""', '"')


def test_the_displays_of_runs_and_sweeps():
  out = io.StringIO()
  for shown in (run_display.Display(Console(file=out)), sweep_display.Display(Console(file=out))):
    shown.note(EVIL)
  assert _is_safe(out.getvalue()) and out.getvalue().count('\\x9b2J') == 2
  assert isinstance(run_display.Display().console, Console) and isinstance(sweep_display.Display().console, Console)



def test_printed_commands_are_quoted(tmp_path):
  workdir, out = tmp_path / "my run; rm -rf '$HOME'", io.StringIO()
  durable.write(workdir / records.EVENTS, '')
  shown = run_display.Display(Console(file=out, width=500))
  row = {'accuracy': 0.5, 'loss': 1.0}
  shown.summary({'test': row, 'val': row, 'step': 1, 'steps': 1, 'test_examples': 2}, Classify(), workdir)
  shown.summary({'steps': 1}, Classify(), workdir)
  shown.probed({'examples': {'test': 1, 'train': 1}, 'knn': 0.0, 'linear': 0.0, 'bundle': str(workdir)}, 'again')
  for start in ('use it ', 'look at it ', 'see curves '):
    for line in (line for line in out.getvalue().split('\n') if line.startswith(start)):
      assert any(word.endswith(str(workdir)) for word in shlex.split(line)), line
  trunk = next(line for line in out.getvalue().split('\n') if line.startswith('trunk of'))
  assert shlex.quote(str(workdir)) in trunk
