"""One page of many runs: python -m vit_jax.board FOLDER... [--out=PAGE.html] [--group=COLUMN] [--watch]

FOLDERs are sweeps, run folders or folders of them, local or bucket paths. The page has a table of the runs with what
differs between their configs, how far each is and why it failed, their curves, and the law so far with the ends that it
predicts; of two groups it says which needs less. `vit_jax.sweep` writes the same page, WORKDIR/index.html, while it
runs. --watch does so for runs that other programs train, until none of them is running.
"""

import os
import time

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError

_OUT = flags.DEFINE_string('out', None, 'The page to write; default: FOLDER/index.html, or board.html of several '
                           'FOLDERs.')
_GROUP = flags.DEFINE_string('group', None, 'The config key or column, such as family, whose values are compared; '
                             'default: the first of family, objective and tag that has two values.')
_WATCH = flags.DEFINE_bool('watch', False, 'Rewrite the page while runs are in progress.')
_SECONDS = 1.0


def main(paths: list[str]) -> int:
  if not paths:
    raise UserError(f'expected folders of runs: {commands.written("board", "FOLDER...")}')
  from vit_jax.printable import say
  from vit_jax.sweeps import board_page, standing
  jobs = board_page.find(paths)
  out = _OUT.value or (os.path.join(paths[0], board_page.NAME) if len(paths) == 1 else 'board.html')
  board = board_page.Board(', '.join(os.path.basename(path.rstrip('/')) or path for path in paths), jobs, out,
                           _GROUP.value)
  if _WATCH.value:
    board.poll()
    say(f'page        {out}, rewritten while runs are in progress; Ctrl-C stops that')
    while any(there.status == 'running' for there in standing.of_all(jobs)):
      time.sleep(_SECONDS)
      board.poll()
  board.write()
  count = sum(not job.saves for job in jobs)
  say(f'page        {out}: {count} run{"s" * (count != 1)}')
  return 0


if __name__ == '__main__':
  cli.run(main, positional=True)
