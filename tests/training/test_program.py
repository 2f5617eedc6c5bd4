"""The step is compiled with the least recomputation that fits."""

import dataclasses
import types

import jax
import pytest

from vit_jax import host
from vit_jax.layers import stack
from vit_jax.training import config as run_config
from vit_jax.training import program
from vit_jax.training import run as run_lib


@dataclasses.dataclass
class _Machine:
  """Devices of a platform on which a step with each policy needs so many bytes; the TPU's compiler refuses too many."""
  platform: str
  needs: dict
  holds: int = 10

  def compile(self, remat, platform):
    assert platform == self.platform
    need = self.needs[remat]
    if self.platform == 'tpu' and need > self.holds:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm')
    return types.SimpleNamespace(
        remat=remat, memory_analysis=lambda: types.SimpleNamespace(peak_memory_in_bytes=need))

  def memory_stats(self):
    return {'bytes_limit': self.holds}

  def chosen(self, monkeypatch, remat='auto'):
    """(the policy of the compiled step, what was said)."""
    monkeypatch.setattr(host, 'compile_step', self.compile)
    system = types.SimpleNamespace(execution=types.SimpleNamespace(remat=remat))
    run = types.SimpleNamespace(
        config=types.SimpleNamespace(system=system), platform=self.platform, recomputing=lambda remat: remat,
        mesh=types.SimpleNamespace(devices=types.SimpleNamespace(flat=[self])))
    said = []
    return program.first_that_fits(run, lambda remat: remat, said.append).remat, said


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
@pytest.mark.parametrize('needs, chosen', [((5, 3, 2), 'none'), ((15, 9, 2), 'dots'), ((15, 12, 8), 'full')])
def test_the_least_recomputation_that_fits(monkeypatch, platform, needs, chosen):
  remat, said = _Machine(platform, dict(zip(stack.POLICIES, needs))).chosen(monkeypatch)
  assert remat == chosen and len(said) == stack.POLICIES.index(chosen)
  assert all('does not fit into the memory with remat=' in text for text in said)


def test_what_was_asked_for_is_taken_as_it_is(monkeypatch):
  needs = dict(zip(stack.POLICIES, (15, 15, 15)))
  assert _Machine('gpu', needs).chosen(monkeypatch, 'dots') == ('dots', [])
  with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
    _Machine('tpu', needs).chosen(monkeypatch)


def test_a_cpu_recomputes_nothing_unless_asked(monkeypatch):
  assert _Machine('cpu', dict(zip(stack.POLICIES, (15, 1, 1)))).chosen(monkeypatch) == ('none', [])


def test_a_run_recomputes_as_it_is_told(tiny_config):
  run = run_lib.prepare(run_config.cast(tiny_config))
  assert run.recomputing('none') is run
  again = run.recomputing('full')
  assert again.config == run.config and again.model is not run.model
  batch = next(run.data.train_batches(0, 0, 1))
  params, stats = run.model.init(jax.random.key(0))
  loss = lambda model: jax.make_jaxpr(jax.grad(lambda p: model.apply(p, stats, batch['image'] * 1.0)[0].sum()))(params)
  assert 'remat' in str(loss(again.model)) and 'remat' not in str(loss(run.model))
