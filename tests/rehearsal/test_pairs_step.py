"""The step of a whole SigLIP on absent chips, by the TPU's compiler: no device holds the logits of the batch."""

import json
import subprocess
import sys

import command_line
import pytest

from vit_jax.rehearsal import compiler

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))]


def _step(form):
  """The compiler's figures with a form of the loss: `ring` is ours."""
  done = subprocess.run([sys.executable, 'experiments/pair_loss/step.py', 'v5e-256', form, 'full', '1'],
                        capture_output=True, text=True, cwd=command_line.ROOT, env=command_line.ON_CPU)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_the_loss_of_32768_pairs_adds_little_to_a_chip():
  ours, without, dense = (_step(form) for form in ('ring', 'pairless', 'dense'))
  assert ours['peak_mb'] - without['peak_mb'] < 100
  sides = lambda found: max(map(len, found['with_batch']), default=0)
  assert sides(dense) == 2 and sides(ours) <= 1  # [of a device, of the batch]
