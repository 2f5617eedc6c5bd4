"""A smaller model out of a trained one: python -m vit_jax.prune RUN --heads=0.5 --mlp=0.5 --workdir=FOLDER

RUN is a run folder of vit_jax.main. Of each layer the heads and MLP units that matter least to the loss on training
pictures are taken out. FOLDER is a run folder like any other: predict with it, take it as a teacher, or fine-tune it.
"""

from absl import flags

from vit_jax import cli
from vit_jax.errors import UserError

_HEADS = flags.DEFINE_float('heads', 0.5, 'The share of the heads of each layer that is taken out.')
_MLP = flags.DEFINE_float('mlp', 0.5, 'The share of the MLP units of each layer that is taken out.')
_EXAMPLES = flags.DEFINE_integer('examples', 2048, 'How many training pictures tell what matters.', lower_bound=1)
_WORKDIR = flags.DEFINE_string('workdir', None, 'The folder that is written.')
_STEP = flags.DEFINE_integer('step', None, 'Of which checkpoint; default: the one that the test score is of.',
                             lower_bound=0)


def main(arguments: list[str]) -> int:
  if len(arguments) != 1 or not _WORKDIR.value:
    raise UserError('want one run folder and where to write: python -m vit_jax.prune RUN --workdir=FOLDER')
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
  print(f'an image    {before["flops_per_example_forward"] / 1e9:.3g} -> '
        f'{record["flops_per_example_forward"] / 1e9:.3g} GFLOPs')
  print(f'folder      {_WORKDIR.value}')
  return 0


if __name__ == '__main__':
  cli.run(main, positional=True)
