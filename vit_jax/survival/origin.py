"""Where the numbers of a run folder come from: its code, data and teacher, compared with those of today.

Other data or another teacher would make numbers that belong to no run, so they are refused. (The weights that a run
starts from are part of its identity.) Other code is what research is about: it is said, and kept on record.
"""

import time
from typing import Any

from vit_jax.errors import UserError


def refuse_other(there: dict[str, Any], ours: dict[str, Any], where: str) -> None:
  """Compares the data and the teacher of a run.json with those of the run that would use its folder.

  What an older run.json does not have is not compared.

  Args:
    there: the run.json of the folder.
    ours: the record of the run.
    where: the folder, for the message.

  Raises:
    UserError: they differ; the message says in what.
  """
  wrong = []
  theirs, data = (record.get('data') or {} for record in (there, ours))
  if theirs.get('classes') not in (None, data['classes']):
    pairs = [(a, b) for a, b in zip(theirs['classes'], data['classes']) if a != b]
    counts = f'{len(theirs["classes"])}, now {len(data["classes"])}'
    first = f'{pairs[0][0]!r} is now {pairs[0][1]!r}' if pairs else counts
    wrong.append(f'the classes of the data are others ({first})')
  for split, known in (theirs.get('fingerprint') or {}).items():
    if known != data['fingerprint'].get(split):
      wrong.append(f'the {split} data are others (fingerprint {known}, now {data["fingerprint"].get(split)})')
  known, now = ((record.get('teacher') or {}).get('digest') for record in (there, ours))
  if known is not None and known != now:
    wrong.append(f'the teacher is another one (digest {known}, now {now})')
  if wrong:
    raise UserError(f'{where} was begun with other inputs: {"; ".join(wrong)}. Give the run what it began with, or '
                    'another --workdir')


def codes(there: dict[str, Any] | None, ours: dict[str, Any], step: int) -> list[dict[str, Any]]:
  """Which steps are done by which code: [{'from_step', 'code', 'git'}, ...], with this process's from `step` on.

  Args:
    there: the run.json of the folder; None where there is none.
    ours: the record of the run.
    step: the number of finished steps.
  """
  before = [part for part in (there or {}).get('codes', ()) if part['from_step'] < step]
  if there and step and not before:  # an older run.json
    before = [{'from_step': 0, 'code': there.get('code'), 'git': there.get('git')}]
  if before and before[-1]['code'] == ours['code']:
    return before
  return [*before, {'from_step': step, 'code': ours['code'], 'git': ours['git']}]


def mixed(codes: list[dict[str, Any]]) -> str | None:
  """A sentence on a run that more than one code has trained; None for others."""
  if len(codes) < 2:
    return None
  before, now = codes[-2:]
  return (f'its first {now["from_step"]:,} steps are by other code ({_named(before)}) than those from here on '
          f'({_named(now)}); run.json lists them. A run of one code: --config.tag=TEXT makes it another run')


def finished(there: dict[str, Any], code: str, when: float | None) -> str:
  """A sentence on a run that has nothing left to train.

  Args:
    there: its run.json.
    code: the digest of today's code.
    when: the Unix time at which it finished; None: not known.
  """
  date = f' on {time.strftime("%Y-%m-%d %H:%M", time.localtime(when))}' if when else ''
  last = (there.get('codes') or [there])[-1]
  if last.get('code') in (None, code):
    return f'finished{date}; nothing was trained'
  return (f'finished{date} by code {_named(last)}; the code is {code} now, and nothing was trained. To train it again: '
          '--config.tag=TEXT makes it another run, --workdir=FOLDER puts it elsewhere')


def by_other_code(there: dict[str, Any] | None, code: str) -> bool:
  """Whether the last steps of a run.json are by other code than `code`; False where it does not say."""
  last = ((there or {}).get('codes') or [there or {}])[-1]
  return last.get('code') not in (None, code)


def _named(part):
  commit = f', commit {part["git"][:10]}{"+" if part["git"].endswith("+") else ""}' if part.get('git') else ''
  return f'{part.get("code") or "of unknown digest"}{commit}'
