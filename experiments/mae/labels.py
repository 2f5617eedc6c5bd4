"""From scratch, or from a masked autoencoder of all pictures, at the same FLOPs: the runs.

  python experiments/mae/labels.py tune                       learning rates and weight decay, by validation
  python experiments/mae/labels.py run 3e11 100 300 1000      a budget with so many labels, three seeds

For a budget of B FLOPs, from scratch is one run of B, B/4 or B/16. Pre-trained is a masked autoencoder of 3B/4 and then
a fine-tuning of B/4 or B/16. The length with the lower validation error counts, for each seed; where a length is not
better than one of a quarter, the next is left out. Runs share their compiled programs, and a finished one is not
repeated.
"""

import json
import pathlib
import statistics
import sys

RUNS = pathlib.Path('runs/mae')
RECIPE = 'experiments/mae/recipe.py'
BUDGETS, SEEDS = (3e11, 1.2e12), 3  # FLOPs
LENGTHS = {'scratch': (1 / 16, 1 / 4, 1), 'finetuned': (1 / 16, 1 / 4)}  # shares of the budget, with labels
PRETRAINING = 3 / 4
WARMUP = 0.1  # of a run
RATES, DECAYS = (1e-3, 3e-3, 1e-2, 3e-2), (0.05, 0.5)
TUNED_ON, TUNING_SEED, TUNING_LENGTH = 1_000, 100, 3e11  # images with labels, and FLOPs with labels
STEP = 64 * 9.3e6  # about the FLOPs of a step of either kind of run with labels
NAMES = {'scratch': 'from scratch', 'finetuned': 'pre-trained'}


def train(folder, arg, flops, seed, **changes):
  """The record of a run, which is trained where it has not been."""
  import vit_jax
  step = STEP if arg == 'classify' else 0.39 * STEP
  changes |= {'train.flops': flops, 'seed': seed, 'schedule.warmup_steps': int(WARMUP * flops / step)}
  record = vit_jax.train(f'{RECIPE}:{arg}', RUNS / folder, quiet=True, **changes).record
  last = record['results']
  print(f'{folder}: {last["steps"]:,} steps, val '
        f'{last["val"].get("error", last["val"]["loss"]):.4f}', flush=True)
  return record


def pretrained(budget, seed):
  """The folder of the masked autoencoder of a budget, which is trained where it has not been."""
  folder = f'pretrained/flops{budget:.2g}_seed{seed}'
  train(folder, 'reconstruct', PRETRAINING * budget, seed)
  return str(RUNS / folder)


def supervised(method, budget, length, labels, seed, tuned):
  """The record of a run with labels; its length is a share of the budget."""
  name = f'{labels}_flops{length * budget:.2g}_seed{seed}'
  changes = {'data.unique_examples': labels, 'optimizer.learning_rate': tuned['learning_rate'],
             'optimizer.weight_decay': tuned['weight_decay']}
  if method == 'scratch':  # a quarter of one budget is all of a smaller one
    return train(f'scratch/{name}', 'classify', length * budget, seed, **changes)
  changes['pretrained.path'] = pretrained(budget, seed)
  return train(f'finetuned/of{budget:.2g}_{name}', 'classify', length * budget, seed, **changes)


def tune():
  """Writes the learning rate and weight decay of each method with the lowest validation error."""
  path, best = pretrained(BUDGETS[-1], TUNING_SEED), {}
  for method in LENGTHS:
    errors = {}
    for rate in RATES:
      for decay in DECAYS:
        changes = {'data.unique_examples': TUNED_ON, 'optimizer.learning_rate': rate, 'optimizer.weight_decay': decay}
        if method == 'finetuned':
          changes['pretrained.path'] = path
        record = train(f'tuning/{method}_rate{rate:g}_decay{decay:g}', 'classify', TUNING_LENGTH, TUNING_SEED,
                       **changes)
        errors[rate, decay] = record['results']['val']['error']
    rate, decay = min(errors, key=errors.get)
    best[method] = {'learning_rate': rate, 'weight_decay': decay}
    print(f'{NAMES[method]}: learning rate {rate:g}, weight decay {decay:g}', flush=True)
  (RUNS / 'tuned.json').write_text(json.dumps(best, indent=2) + '\n')


def run(budget, labels):
  tuned = json.loads((RUNS / 'tuned.json').read_text())
  for n in labels:
    for method, lengths in LENGTHS.items():
      best = float('inf')
      for length in lengths:
        records = [supervised(method, budget, length, n, seed, tuned[method]) for seed in range(SEEDS)]
        error = statistics.mean(record['results']['val']['error'] for record in records)
        if error >= best:  # four times the FLOPs did not help, and more will not
          break
        best = error


def main(what, budget=None, *labels):
  if what == 'tune':
    tune()
  else:
    run(float(budget), [int(n) for n in labels])


if __name__ == '__main__':
  import jax
  sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
  jax.config.update('jax_compilation_cache_dir', str(RUNS.absolute() / 'compiled'))  # runs share their programs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  main(*sys.argv[1:])
