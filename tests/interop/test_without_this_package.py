"""An exported file is used without this package by the lines in docs/weights.md."""

import pathlib

import numpy as np
from golden_files import folder
from pages import ROOT

from vit_jax import interop
from vit_jax.interop import exported


def test_the_lines_of_the_page(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('runs').mkdir()
  exported.write(interop.read(folder('timm_vit', tmp_path / 'timm')), 'runs/model.stablehlo')
  page = (ROOT / 'docs' / 'weights.md').read_text()
  lines = page.split('```python\n')[1].split('```')[0]
  assert 'vit_jax' not in lines
  images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
  found = {'images': images}
  exec(lines, found)
  known = exported.read('runs/model.stablehlo')
  np.testing.assert_allclose(found['probabilities'], known.probabilities(list(images)), rtol=1e-5, atol=1e-6)
  assert found['names'] == list(known.class_names)
