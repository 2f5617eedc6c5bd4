"""Fixtures for runs with faults, and an undisturbed run to compare them with."""

import pytest
from fault_runs import Faults, end


@pytest.fixture(scope='session')
def faults(tmp_path_factory):
  return Faults(tmp_path_factory.mktemp('faults'))


@pytest.fixture(scope='session')
def undisturbed(faults, tmp_path_factory):
  """The folder of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  code, _, err = faults.run(workdir)
  assert code == 0, err
  return workdir


@pytest.fixture(scope='session')
def assert_same_end(undisturbed):
  """assert_same_end(workdir) asserts that log and arrays equal those of the undisturbed run, byte for byte."""
  metrics, arrays = end(undisturbed)
  assert len(arrays) > 40

  def check(workdir):
    ours = end(workdir)
    assert ours[0] == metrics and ours[1] == arrays

  return check
