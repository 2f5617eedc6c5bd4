"""Plans a run for TPUs or GPUs that are not here: python -m vit_jax.plan --config=configs/vit_b16.py --tpu=v5e-16

Compiles the real training step with the TPU compiler, on a machine that needs neither a TPU nor the data set. Prints
whether the step fits, its memory by class, its collectives, the least time per step, and chip-hours. --gpu=h100-8 plans
for GPUs, for which there is no compiler without one: all figures are then estimates. --search finds the fastest mesh,
rematerialisation and micro-batches that fit. --sweep=FILE.py (instead of --config) plans every run of a sweep and adds
them up. Exit codes: 0: it fits; 1: it does not fit, or bad input. Where it cannot be compiled, the estimate decides.
"""

import json
import sys

from absl import flags

from vit_jax import cli
from vit_jax.errors import UserError
from vit_jax.printable import say

_CONFIG = cli.define_config()
_SWEEP = flags.DEFINE_string('sweep', None, 'Plan a whole sweep: FILE.py, or FILE.py:ARG.')
_TPU = flags.DEFINE_string('tpu', None, 'The slice: v5e-16, v4-32, v5p-512, v6e-8, tpu7x-8, ...')
_GPU = flags.DEFINE_string('gpu', None, 'Instead of a slice, GPUs and their number: h100-8, a100-80gb-8, l4-1, ...')
_NUM_SLICES = flags.DEFINE_integer('num_slices', 1, 'Number of slices, connected by the data-center network.', 1)
_MAX_HBM_GB = flags.DEFINE_float('max_hbm_gb', None, 'HBM per chip that may be used (GB, 1e9 bytes); default: all.')
_SEARCH = flags.DEFINE_bool('search', False, 'Find the fastest mesh, rematerialisation and micro-batches.')
_SECONDS = flags.DEFINE_float('search_seconds', 240, 'Time limit of a search, in seconds.', 1)
_MFU = flags.DEFINE_float('mfu', 0.4, 'Model FLOPs utilisation, for chip-hours.', 0.01, 1)
_PRICE = flags.DEFINE_float('price', None, 'Dollars per chip-hour, for the cost.', 0)
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object instead of the text.')


def main() -> int:
  if (_CONFIG.value is None) == (_SWEEP.value is None):
    raise UserError('expected --tpu or --gpu, and one of --config and --sweep, as in --config=configs/vit_b16.py '
                    '--tpu=v5e-16')
  from vit_jax.cost import gpus

  target = gpus.target(_TPU.value, _GPU.value, _NUM_SLICES.value)
  if _MAX_HBM_GB.value is not None and _MAX_HBM_GB.value <= 0:
    raise UserError(f'--max_hbm_gb={_MAX_HBM_GB.value}: must be positive')
  limit = min((_MAX_HBM_GB.value or float('inf')) * 1e9, target.chip.hbm_bytes)

  import jax
  jax.config.update('jax_platforms', 'cpu')  # nothing is computed here, so accelerators are left free
  from vit_jax.rehearsal import job as job_lib
  from vit_jax.training import config as run_config

  make = lambda job: (_search if _SEARCH.value else _one)(job, target, limit)
  if _SWEEP.value:
    return _sweep(target, make)
  plan = make(job_lib.open_job(run_config.cast(_CONFIG.value)))
  if _JSON.value:
    print(json.dumps(plan.to_json()))
  else:
    _show(plan)
  return 0 if plan.should_fit else 1


def _sweep(target, make):
  from vit_jax.rehearsal import plan_text, total
  from vit_jax.sweeps import sweep_plan
  configs, names, notes = sweep_plan.read(_SWEEP.value)
  jobs = total.open_jobs(names, [config for _, config in configs.values()])
  whole = sweep_plan.elsewhere(configs, names, notes, [job.size for job in jobs], target.chips * target.chip.peak_flops)
  plans = zip(names, total.plan_each(jobs, make), strict=True)
  summary = total.Total(tuple(plans), whole.flops_alone, whole.flops, target, _MFU.value, _PRICE.value)
  say(json.dumps(summary.to_json()) if _JSON.value else '\n'.join(plan_text.sweep(summary)))
  return 1 if summary.too_large else 0


def _one(job, target, limit):
  from vit_jax.rehearsal import compiler
  from vit_jax.rehearsal import run_plan as plan_lib
  if reason := compiler.missing(target.platform):
    say(f'{reason}\nWithout it, the plan is an estimate.', sys.stderr)
    return plan_lib.first_that_fits(job, target, lambda choice: plan_lib.estimated(job, target, choice, limit))
  with cli.Progress() as progress:
    def make(choice):
      waiting = lambda elapsed: progress(f'compiling for {target}, remat={choice.remat}, {elapsed:.0f} s')
      return plan_lib.compiled(job, target, choice, limit, waiting=waiting)
    return plan_lib.first_that_fits(job, target, make)


def _search(job, target, limit):
  from vit_jax.rehearsal import compiler, plan_text, search
  if reason := compiler.missing(target.platform):
    raise UserError(f'--search: {reason}')
  with cli.Progress() as progress:
    plans = search.search(job, target, limit, progress, _SECONDS.value)
  if not plans:
    raise UserError(f'--search_seconds={_SECONDS.value:g}: too short, no choice was compiled; give a larger value')
  if not _JSON.value:
    say('\n'.join([*plan_text.table(plans), '']))
  return plans[0]


def _show(plan):
  from vit_jax.rehearsal import plan_text
  say('\n'.join(plan_text.lines(plan, cli.recipe_name(), _MFU.value, _PRICE.value)))
  if not plan.should_fit:
    say(f'\n{plan_text.shortfall(plan)}')
    near = _nearest(plan, [plan.target, *plan.target.larger])
    none = 'slice of this generation' if plan.target.platform == 'tpu' else 'number of these GPUs'
    say(f'the nearest choice that fits: {plan_text.nearest(near)}' if near else
        f'no choice fits: on no {none}, by the estimates')


def _nearest(plan, targets):
  from vit_jax.rehearsal import search
  with cli.Progress() as progress:
    for target in targets:
      limit = plan.limit_bytes if _MAX_HBM_GB.value else target.chip.hbm_bytes
      if near := search.nearest_fit(plan.job, target, plan.choice, limit, progress, plan.outcome is not None):
        return near
  return None


if __name__ == '__main__':
  cli.run(main)
