"""An objective is chosen by a recipe, a flag or a sweep, here or from a module of one's own."""

import pathlib

import pytest

from vit_jax import objectives
from vit_jax.errors import UserError
from vit_jax.objectives import classify, reconstruct
from vit_jax.sweeps import sweep_plan
from vit_jax.training import config as run_config

QUICKSTART = f'--config={pathlib.Path(__file__).parents[2] / "configs/quickstart.py"}'


def test_a_flag_brings_the_objectives_own_options_in_any_order():
  flags = ['--config.loss.decoder_width=32', '--config.objective=reconstruct', '--config.loss.decoder_num_heads=2']
  config = sweep_plan.parse([QUICKSTART, *flags])
  assert config.loss == reconstruct.Config(decoder_width=32, decoder_num_heads=2) and config.model.width == 64
  assert sweep_plan.parse([QUICKSTART, '--config.objective=classify']) == sweep_plan.parse([QUICKSTART])
  with pytest.raises(UserError, match='no such key .*label_smoothing|label_smoothing'):
    sweep_plan.parse([QUICKSTART, '--config.objective=reconstruct', '--config.loss.label_smoothing=0.1'])


def test_one_sweep_has_runs_of_both(tmp_path):
  (tmp_path / 'sweep.py').write_text(f"""
from vit_jax import sweeps

def get_sweep():
  small = sweeps.zip(sweeps.axis('model.width', 32, 64), sweeps.axis('model.num_heads', 2, 4))
  decoder = {{'objective': 'reconstruct', 'loss.decoder_width': 16, 'loss.decoder_num_heads': 2}}
  both = [{{'objective': 'classify'}}, decoder]
  return sweeps.Sweep({QUICKSTART.partition('=')[2]!r}, [size | kind for size in small for kind in both])
""")
  configs, _, _ = sweep_plan.read(f'{tmp_path}/sweep.py')
  found = sorted((c.objective, c.model.width) for _, c in configs.values())
  assert found == [('classify', 32), ('classify', 64), ('reconstruct', 32), ('reconstruct', 64)]


def test_modules_of_ones_own(tmp_path, monkeypatch):
  (tmp_path / 'mine.py').write_text("""
import dataclasses
from vit_jax.objectives.classify import Classify

@dataclasses.dataclass(frozen=True)
class Config:
  name: str = 'softmax'
  label_smoothing: float = 0.0
  more: int = 3

class Mine(Classify):
  Config = Config

OBJECTIVE, NOTHING = Mine, 3
""")
  (tmp_path / 'broken.py').write_text('1 / 0\n')
  start = 'from vit_jax.objectives.objective import Metric, Objective\nclass Mine(Objective):\n  '
  (tmp_path / 'lossless.py').write_text(start + "metrics = {'accuracy': Metric()}\n")
  (tmp_path / 'clash.py').write_text(start + "metrics = {'loss': Metric(), 'weight': Metric()}\n")
  (tmp_path / 'thawed.py').write_text(start + 'class Config:\n    pass\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  c = run_config.defaults('vit', 'mine:OBJECTIVE')
  c.loss.more = 4
  objective = objectives.of(run_config.cast(c))
  assert isinstance(objective, classify.Classify) and objective.config.more == 4
  for name, message in {
      'mine:OBJECTIV': "objective='mine:OBJECTIV': mine has no 'OBJECTIV'",
      'mine:NOTHING': "objective='mine:NOTHING': expected a subclass of .*objectives.objective.Objective, got int",
      'absent_module:X': "objective='absent_module:X': cannot import absent_module",
      'broken:X': "objective='broken:X': broken raises ZeroDivisionError as it is imported",
      'lossless:Mine': 'TypeError as it is imported: Mine: metrics and values must begin with loss',
      'clash:Mine': 'Mine: values must not be called weight',
      'thawed:Mine': 'Mine: Config must be a frozen dataclass',
      ':': "objective=':': "}.items():
    with pytest.raises(UserError, match=message):
      run_config.defaults('vit', name)
  with pytest.raises(UserError, match="family='mine:OBJECTIVE': expected a vit_jax.models.family.Family"):
    run_config.defaults('mine:OBJECTIVE')
