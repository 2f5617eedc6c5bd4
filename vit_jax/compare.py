"""Where two runs part: python -m vit_jax.compare A B [--tolerance=1e-6] [--json]

A and B are run folders of vit_jax.main, local or bucket paths. They may be of different commits, devices, meshes or
versions of JAX. The command prints:

  run.json        what differs in config, code, data, versions, devices and sizes
  metrics.jsonl   the first row that differs, in which column and by how much, and how the difference grows
  checkpoints     the first of the steps that both saved at which arrays differ, and these arrays, the largest
                  relative difference first; arrays are compared by the digests that were saved with them, and are read
                  only at a step whose digests differ

Runs that have not finished are compared as far as both go. A row that only one has counts as a difference where the
other has finished, or has logged a later step. The relative difference of two numbers is measured against the larger
magnitude, that of two arrays is the largest difference divided by the largest magnitude. With --tolerance, numbers and
arrays count as equal up to that difference. The first that differ at all are listed too.

The last line is the verdict. Exit codes: 0 equal, or equal within --tolerance, whatever differs in run.json; 1
different, nothing to compare, or bad input.
"""

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError

_TOLERANCE = flags.DEFINE_float('tolerance', 0.0, 'The relative difference up to which numbers count as equal. 0: '
                                'they have to be the same.')
_JSON = flags.DEFINE_boolean('json', False, 'Print one JSON object instead of tables.')


def main(arguments: list[str]) -> int:
  if len(arguments) != 2:
    raise UserError(f'expected two run folders, got {len(arguments)}: {commands.written("compare", "A B")}')
  import jax

  from vit_jax.comparison import runs, terminal
  from vit_jax.console import Console

  jax.config.update('jax_platforms', 'cpu')  # arrays stay on the host: a run may hold the accelerator
  comparison = runs.compare(*arguments, _TOLERANCE.value)
  if _JSON.value:
    print(comparison.to_json())
  else:
    terminal.show(Console(), comparison)
  return 0 if comparison.equal else 1


if __name__ == '__main__':
  cli.run(main, positional=True)
