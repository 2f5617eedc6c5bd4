"""How a run begins, from a config to its results: what the command `train` and `vit_jax.train` share."""

import dataclasses
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from vit_jax import goodput
from vit_jax.data import pipeline
from vit_jax.optimisation import schedule
from vit_jax.parallel import processes
from vit_jax.survival import restarts
from vit_jax.survival import workdir as workdir_lib
from vit_jax.training import loop, run_folder
from vit_jax.training import run as run_lib
from vit_jax.training.config import RunConfig
from vit_jax.training.display import Display
from vit_jax.training.run import Run

SHARE = 0.1  # of a run, where the recipe's warm-up does not fit in


def prepare(config: RunConfig, given: Collection[str], workdir: str | os.PathLike | None, note: Callable[[str], None],
            branch_steps: Sequence[int] = ()) -> Run:
  """Checks a config and its folder, and opens what the run needs; arguments and errors as of `check`."""
  config = check(config, given, workdir, note, branch_steps)
  with restarts.opening(workdir):
    return run_lib.prepare_trunk(config, branch_steps) if branch_steps else run_lib.prepare(config)


def check(config: RunConfig, given: Collection[str], workdir: str | os.PathLike | None, note: Callable[[str], None],
          branch_steps: Sequence[int] = ()) -> RunConfig:
  """Checks a config and its folder, cheap things first; returns the config with what was fitted in it.

  Args:
    config: with what was given in it.
    given: the keys that were given beside the recipe, such as 'train.steps'.
    workdir: the folder; None where its name will be the run's.
    note: called with lines of text for the user.
    branch_steps: for the trunk of branches at these steps.

  Raises:
    UserError: the config, or a folder that holds another run or cannot be written.
  """
  run_lib.check(config)
  config = fitted(config, given, note)
  if workdir is not None and not branch_steps:
    processes.from_writer(lambda: run_folder.check(config, workdir))
  else:
    workdir_lib.check(workdir or 'runs')
  return config


def to_results(run: Run, name: str, workdir: str | os.PathLike, display: Display, profile: bool = False,
               trunk: str | os.PathLike | None = None, clock: goodput.Clock | None = None) -> dict[str, Any]:
  """The results of a run: trained (`loop.train`), or read where it has finished already."""
  processes.agree(run.facts | {'--workdir': os.fspath(workdir), '--trunk': str(trunk)})
  results = processes.from_writer(lambda: run_folder.finished_results(run, workdir))
  display.header(run, name, workdir)
  if results is None:
    return loop.train(run, workdir, display, profile, trunk, clock)
  display.note(processes.from_writer(lambda: run_folder.finished_words(run, workdir)))
  return results


def fitted(config: RunConfig, given: Collection[str], note: Callable[[str], None]) -> RunConfig:
  """The config with a warm-up that fits, where a length was given and the recipe's warm-up is too long for it.

  A warm-up that was given, or is the recipe's beside its own length, stays as it is and is refused later. The length
  in FLOPs is left alone too: it needs the model, which may come from weights. Arguments as in `check`.
  """
  warmup, (kind, _) = config.schedule.warmup_steps, schedule.check_length(config.train)
  if not warmup or 'schedule.warmup_steps' in given or f'train.{kind}' not in given or kind == 'flops':
    return config
  examples = pipeline.train_examples(config.data) if kind == 'epochs' else 0
  steps = schedule.num_steps(config.train, config.data.batch_size, examples, 1)
  if warmup < steps:
    return config
  fits = int(SHARE * steps)
  note(f'note: the warm-up of {warmup:,} steps does not fit into {steps:,}: it takes {fits:,} '
       f'(--config.schedule.warmup_steps={fits})')
  return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, warmup_steps=fits))
