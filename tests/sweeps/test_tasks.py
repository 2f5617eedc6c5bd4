from vit_jax.sweeps import tasks
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun, PlannedTrunk

BUCKET = 'gs://bucket/law'


def _run(name, identity, steps=100, **trunk):
  arguments = ('--config=r.py', f'--config.train.steps={steps}')
  return PlannedRun(name, identity, arguments, 1000, steps, 64 * steps, 10, **trunk)


def _plan():
  runs = (_run('cosine', 'aaaa'), _run('width16_steps200', 'bbbb', 200, trunk='tttt', branch_step=140),
          _run('width16_steps100', 'cccc', 100, trunk='tttt', branch_step=70))
  return Plan(runs, (PlannedTrunk('tttt', runs[1].arguments, (70, 140), 64, 10),), (), 'cpu', 1e12)


def test_a_run_is_a_task_and_a_trunk_is_one_with_its_runs_in_order():
  made = tasks.make(_plan(), BUCKET + '/', ['--distributed=auto'])
  alone, shared = made
  assert alone.label == 'cosine-aaaa' and shared.label == 'width16-tttt'
  assert alone.programs == (
      ('--config=r.py', '--config.train.steps=100', f'--workdir={BUCKET}/cosine-aaaa', '--distributed=auto'),)
  trunk, first, second = shared.programs
  assert trunk[2:] == (f'--workdir={BUCKET}/trunks/tttt', '--branch_steps=70,140', '--distributed=auto')
  for program, name in ((first, 'width16_steps100-cccc'), (second, 'width16_steps200-bbbb')):
    assert program[2:] == (f'--workdir={BUCKET}/{name}', f'--trunk={BUCKET}/trunks/tttt', '--distributed=auto')
  assert [[run.config_hash for run in runs] for runs in made.values()] == [['aaaa'], ['cccc', 'bbbb']]


def test_a_run_that_shares_its_trunk_with_no_other_is_trained_from_the_start():
  run = _run('wsd', 'bbbb', trunk='tttt', branch_step=70)
  plan = Plan((run,), (PlannedTrunk('tttt', run.arguments, (70,), 64, 10),), (), 'cpu', 1e12)
  (task,) = tasks.make(plan, BUCKET)
  assert task.programs == ((*run.arguments, f'--workdir={BUCKET}/wsd-bbbb'),)


def test_a_trunk_whose_runs_share_no_word_has_a_default_name():
  runs = (_run('steps100', 'bbbb', trunk='tttt'), _run('steps1500', 'cccc', trunk='tttt'))
  plan = Plan(runs, (PlannedTrunk('tttt', runs[0].arguments, (70,), 64, 10),), (), 'cpu', 1e12)
  assert [task.label for task in tasks.make(plan, BUCKET)] == ['trunk-tttt']
