"""Exported files are used without this package by the lines in docs/weights.md."""

import numpy as np
import pytest
from golden_files import folder
from pages import ROOT

from vit_jax import interop
from vit_jax.interop import exported, writers


@pytest.mark.parametrize('which, kind', [(0, 'stablehlo'), pytest.param(1, 'onnx', marks=pytest.mark.slow)])
def test_the_lines_of_the_page(which, kind, tmp_path, monkeypatch):
  if kind == 'onnx':
    pytest.importorskip('jax2onnx')
  monkeypatch.chdir(tmp_path)
  weights = interop.read(folder('timm_vit', tmp_path / 'timm'))
  for name in dict.fromkeys((kind, 'stablehlo')):
    writers.write(weights, f'runs/model.{name}', name)
  page = (ROOT / 'docs' / 'weights.md').read_text()
  lines = page.split('```python\n')[1 + which].split('```')[0]
  assert 'import vit_jax' not in lines and 'from vit_jax' not in lines
  images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
  found = {'images': images}
  exec(lines, found)
  known = exported.read('runs/model.stablehlo')
  np.testing.assert_allclose(found['probabilities'], known.probabilities(list(images)), rtol=1e-4, atol=1e-5)
  assert found['names'] == list(known.class_names)
