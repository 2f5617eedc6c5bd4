"""Prunes a trained model: python -m vit_jax.prune RUN --heads=0.5 --mlp=0.5 --workdir=FOLDER

RUN is a run folder of vit_jax.main. In each layer, the heads and MLP units that matter least for the loss on training
pictures are removed. FOLDER becomes an ordinary run folder, for prediction, distillation or fine-tuning.
"""

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError
from vit_jax.printable import say

_HEADS = flags.DEFINE_float('heads', 0.5, 'Fraction of the heads of each layer to remove.')
_MLP = flags.DEFINE_float('mlp', 0.5, 'Fraction of the MLP units of each layer to remove.')
_EXAMPLES = flags.DEFINE_integer('examples', 2048, 'Number of training pictures to rank heads and units on.',
                                 lower_bound=1)
_WORKDIR = flags.DEFINE_string('workdir', None, 'The run folder to write.')
_STEP = flags.DEFINE_integer('step', None, 'The step of the checkpoint; default: the one that was scored on test.',
                             lower_bound=0)


def main(arguments: list[str]) -> int:
  if len(arguments) != 1 or not _WORKDIR.value:
    raise UserError(f'expected one run folder and --workdir: {commands.written("prune", "RUN --workdir=FOLDER")}')
  source, = arguments
  from vit_jax import host, records
  from vit_jax.pruning import pruned_run, structured
  from vit_jax.training import trained

  host.hush_absent_tpu()
  whole = trained.load(source, _STEP.value)
  shares = {'heads': _HEADS.value, 'mlp': _MLP.value}
  pruned, _ = structured.prune(whole, shares, _EXAMPLES.value)
  record = pruned_run.write(pruned, _WORKDIR.value, source, shares | {'examples': _EXAMPLES.value})
  before, had, has = records.read_run(source), whole.config.model, pruned.config.model
  print(f'kept        {has.num_heads} of {had.num_heads} heads and {has.mlp_dim} of {had.mlp_dim} MLP units in each of '
        f'{has.depth} layers')
  print(f'parameters  {before["params"]:,} -> {record["params"]:,}')
  print(f'per image   {before["flops_per_example_forward"] / 1e9:.3g} -> '
        f'{record["flops_per_example_forward"] / 1e9:.3g} GFLOPs')
  say(f'folder      {_WORKDIR.value}')
  return 0


if __name__ == '__main__':
  cli.run(main, positional=True)
