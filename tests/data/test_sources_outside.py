"""Sources of data and attention kernels from outside, by package.module:NAME."""

import pathlib

import numpy as np
import pages
import pytest

from vit_jax import config, testing
from vit_jax.data import sources
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name='folder', autouse=True)
def _folder(tmp_path, monkeypatch):
  """A folder of modules: the source of docs/data.md, a kernel, and what is neither."""
  (text,) = [block.text for block in pages.blocks(ROOT / 'docs/data.md') if block.mark == 'source']
  (tmp_path / 'stripes_of_mine.py').write_text(text)
  (tmp_path / 'odd_of_mine.py').write_text("""
import dataclasses
from vit_jax.layers import attention, kernels

def ours(*arguments):
  return attention.attend(*arguments)

KERNEL, NUMBER = kernels.Kernel(ours, 'one of ours'), 3
EMPTY = lambda config: {}
HALF = lambda config: {'train': object()}
""")
  monkeypatch.syspath_prepend(tmp_path)
  return tmp_path


def prepare(**changes):
  c = config.defaults('vit')
  c.model.update(dict(patch_size=2, width=8, depth=1, mlp_dim=8, num_heads=2))
  c.data.batch_size, c.train.steps = 16, 2
  c.update_from_flattened_dict(changes)
  return run_lib.prepare(run_config.cast(c))


def test_a_source_written_as_the_page_says_keeps_the_contract(folder):
  testing.keeps_the_contract_of_a_source('stripes_of_mine:SOURCE')
  run = prepare(**{'data.source': 'stripes_of_mine:SOURCE'})
  assert run.data.class_names == ('horizontal', 'vertical')
  assert [run.data.size(split) for split in ('train', 'val', 'test')] == [288, 32, 80]
  assert run.plug_ins == [folder.resolve() / 'stripes_of_mine.py']
  assert run.code != prepare(**{'data.source': 'digits'}).code


def test_a_kernel_of_ones_own():
  run = prepare(**{'system.execution.attention_kernel': 'odd_of_mine:KERNEL'})
  assert [path.name for path in run.plug_ins] == ['odd_of_mine.py']
  metrics, grads = testing._gradients(run)
  wanted, _ = testing._gradients(prepare())
  np.testing.assert_allclose(metrics['loss'], wanted['loss'], rtol=1e-6)


@pytest.mark.parametrize('source, message', [
    ('foldr:DIR', "no source 'foldr:DIR'; did you mean 'folder:DIR'"),
    ('mypkg.nothing:SOURCE', 'cannot import mypkg.nothing'), ('stripes_of_mine:SORCE', "has no 'SORCE'"),
    ('odd_of_mine:NUMBER', 'expected a function'), ('odd_of_mine:EMPTY', "expected a dict of sources with the keys"),
    ('odd_of_mine:HALF', "its train has no 'name'")])
def test_what_is_no_source_is_refused(source, message):
  with pytest.raises(UserError, match=message):
    sources.open_sources(DataConfig(source=source))


@pytest.mark.parametrize('name, message', [
    ('odd_of_mine:NUMBER', 'expected a vit_jax.layers.kernels.Kernel'), ('odd_of_mine:KERNL', "has no 'KERNL'"),
    ('splas', "no such kernel; did you mean 'splash'")])
def test_what_is_no_kernel_is_refused(name, message):
  with pytest.raises(UserError, match=message):
    prepare(**{'system.execution.attention_kernel': name})
