"""Plans as text for the terminal."""

import dataclasses

from vit_jax.rehearsal import compiler
from vit_jax.rehearsal.compiler import Compiled, Refused
from vit_jax.rehearsal.run_plan import Plan
from vit_jax.rehearsal.total import Total


def lines(plan: Plan, name: str, mfu: float, price: float | None) -> list[str]:
  """The lines that describe a plan, one fact per line.

  Args:
    plan: the plan.
    name: the name of the run.
    mfu: model FLOPs utilisation, from 0 to 1, for chip-hours.
    price: dollars per chip-hour; None: no cost is shown.
  """
  job, choice = plan.job, plan.choice
  forward, train = job.flops_per_image
  images = job.config.data.batch_size
  rows = [
      ('run', f'{name}: {job.params:,} parameters, {forward / 1e9:.4g} GFLOPs per image forward, '
              f'{train / 1e9:.4g} in training'),
      ('chips', f'{plan.target.chips}, {plan.target}'),
      ('choice', f'{choice}, {images:,} images per step{_instead(plan)}'),
      ('execution', _execution(plan)),
      ('memory', _memory(plan)),
      ('recomputed', f'{plan.recomputed_share:.1%} of the matmul FLOPs'),
      ('floor', _floor(plan)),
  ]
  if job.teacher:
    asked = (job.spent_per_image - train) / 1e9
    rows.insert(1, ('teacher', f'{job.teacher.workdir}: {asked:.4g} GFLOPs per image forward'))
  if isinstance(plan.outcome, Compiled):
    rows.append(('collectives', _collectives(plan.outcome.collectives)))
  rows.append(('cost', _cost(plan, mfu, price)))
  rows.append(('compiler', _compiler(plan)))
  rows.append(('run it', choice.flags()))
  return [f'{title:<12}{text}' for title, text in rows]


def table(plans: list[Plan]) -> list[str]:
  """A table of the plans that a search compiled, best first."""
  rows = [('', 'choice', 'GB per chip', 'recomputed', 'floor s', 'limit', 'compile s')]
  for plan in plans:
    done = isinstance(plan.outcome, Compiled)
    rows.append(('fits' if plan.fits else 'does not fit', str(plan.choice), f'{plan.needs / 1e9:.2f}',
                 f'{plan.recomputed_share:.1%}', f'{plan.times.floor:.4g}' if done else '-',
                 plan.times.limit if done else '-', f'{plan.outcome.compile_s:.0f}' if done else '-'))
  return _columns(rows)


def sweep(total: Total) -> list[str]:
  """A table of a sweep's runs, one per line, and their sum."""
  rows = [('run', 'parameters', 'steps', 'choice', 'GB per chip', 'floor s', 'limit', 'chip-hours')]
  for name, plan in total.plans:
    rows.append((name, f'{plan.job.params:,}', f'{plan.job.steps:,}', str(plan.choice),
                 f'{plan.needs / 1e9:.2f}{" too large" if plan.fits is False else ""}', f'{plan.times.floor:.3g}',
                 plan.times.limit, f'{plan.chip_hours(total.mfu):,.1f}'))
  out = [*_columns(rows), '']
  saved = ''
  if total.flops < total.flops_alone:
    saved = f' ({total.hours(total.flops_alone):,.1f} if no run shared its trunk)'
  dollars = f', ${total.hours(total.flops) * total.price:,.0f} at ${total.price:g} per chip-hour' if total.price else ''
  out.append(f'{len(total.plans)} runs on {total.target}: {total.flops:.3g} FLOPs, {total.hours(total.flops):,.1f} '
             f'chip-hours at {total.mfu:.0%} MFU or the floor{saved}{dollars}')
  if refused := [name for name, plan in total.plans if plan.fits is False]:
    out.append(f'{len(refused)} do not fit: {", ".join(refused)}')
  elif total.fits is None:
    out.append(f'estimated, not compiled: {compiler.missing(total.target.platform)}')
  return out


def shortfall(plan: Plan) -> str:
  """Says by how much a plan exceeds the memory."""
  over = (plan.needs - plan.limit_bytes) / 1e9
  about = 'about ' if plan.outcome is None else ''
  needs = f'needs {about}{plan.needs / 1e9:.2f} GB per chip, available {plan.limit_bytes / 1e9:.2f} GB'
  if over <= 0:  # refused because of what the compiler reserves
    return f'does not fit: {needs}, but the compiler refused it: {plan.outcome.why}'
  return f'does not fit: {needs}, {over:.2f} GB over the limit'


def nearest(plan: Plan) -> str:
  """A choice that fits where the one asked for does not, with its flags."""
  about = '' if plan.outcome else 'about '
  return (f'{plan.target.flag}, {plan.choice}, {about}{plan.needs / 1e9:.2f} GB per chip, '
          f'floor {plan.times.floor:.3g} s\n  {plan.choice.flags()}')


def _instead(plan):
  """Of what a run tries first: why it is not this."""
  does = 'does' if plan.outcome else 'would'
  tried = ', '.join(f'remat={other.choice.remat} needs {other.needs / 1e9:.2f} GB' for other in plan.before)
  return f' ({does} not fit before: {tried})' if tried else ''


def _execution(plan):
  platform = plan.target.platform
  layers = ', '.join(f'{depth} layers {"scanned" if scan else "unrolled"}'
                     for depth, scan in plan.job.stacks(platform).items())
  number, why = plan.job.microbatches(plan.choice.sizes, plan.target)
  slices = [f'{number} micro-batches, {why}'] if number > 1 and number == plan.choice.microbatches else []
  kernel, why = plan.job.kernel(platform)
  return '; '.join([layers, *slices, *([f'attention {kernel}: {why}'] if kernel else [])])


def _memory(plan):
  guessed = isinstance(plan.outcome, Compiled) and not plan.outcome.activation_bytes
  about = {'activations': 'about '} if guessed else {}
  classes = ', '.join(f'{name} {about.get(name, "")}{size / 1e9:.2f}'
                      for name, size in dataclasses.asdict(plan.memory).items())
  if isinstance(plan.outcome, Refused) or (plan.outcome is None and not plan.should_fit):
    return f'{shortfall(plan)} (estimated: {classes})'
  if plan.outcome is None:
    return f'about {plan.needs / 1e9:.2f} of {plan.limit_bytes / 1e9:.2f} GB per chip, estimated: {classes}'
  said = f'fits, {(plan.limit_bytes - plan.needs) / 1e9:.2f} GB to spare' if plan.fits else shortfall(plan)
  return f'{said}: {plan.needs / 1e9:.2f} of {plan.limit_bytes / 1e9:.2f} GB per chip at the peak ({classes})'


def _floor(plan):
  times = plan.times
  source = 'from the compiled program' if isinstance(plan.outcome, Compiled) else 'from rules of thumb'
  network = ''
  if plan.target.count > 1 and not plan.target.chip.network_bandwidth:
    network = f'; the network between {plan.target.parts} is not counted, because its bandwidth is not known'
  return (f'{times.floor:.4g} s per step, limited by {times.limit} (estimates {source}: compute {times.compute:.4g}, '
          f'hbm {times.hbm:.4g}, interconnect {times.interconnect:.4g} s{network}); MFU {plan.floor_mfu:.0%} at '
          'the floor')


def _collectives(collectives):
  if not collectives:
    return 'none'
  return 'sent per chip and step: ' + ', '.join(
      f'{entry["count"]:,} {kind} {entry["bytes"] / 1e6:,.1f} MB' for kind, entry in collectives.items())


def _cost(plan, mfu, price):
  hours = plan.chip_hours(mfu)
  if hours is None:
    return ('not known: the length is in epochs of a data set of unknown size; set data.unique_examples, or '
            'train.steps and train.epochs=0')
  dollars = f', ${hours * price:,.0f} at ${price:g} per chip-hour' if price else ' (--price=DOLLARS per chip-hour)'
  at = f'{mfu:.0%} MFU' if mfu <= plan.floor_mfu else f'the {plan.floor_mfu:.0%} MFU of the floor'
  return (f'{plan.job.steps:,} steps: {hours:,.1f} chip-hours at {at}, '
          f'{hours / plan.target.chips:,.2f} hours on these chips{dollars}')


def _compiler(plan):
  if plan.outcome is None:
    return f'not used, all of this is estimated: {compiler.missing(plan.target.platform)}'
  if isinstance(plan.outcome, Refused):
    return plan.outcome.why
  versions = ', '.join(f'{name} {version}' for name, version in plan.outcome.versions.items())
  return f'{plan.outcome.compile_s:.1f} s to compile, {plan.outcome.trace_s:.1f} s to trace; {versions}'


def _columns(rows):
  widths = [max(map(len, column)) for column in zip(*rows)]
  return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
