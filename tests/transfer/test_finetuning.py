"""The full workflow on real pictures: pretrain on eight classes, fine-tune on ten, score, export and predict."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from command_line import AS_USERS, ROOT
from PIL import Image

from vit_jax import interop, records
from vit_jax.data import pipeline
from vit_jax.data.sources import DEBIAN_FASHION_MNIST
from vit_jax.interop import writers
from vit_jax.training import config as run_config
from vit_jax.training import trained


def _python(*arguments):
  return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=ROOT,
                        env=AS_USERS | {'PYTHONPATH': str(ROOT)}).stdout


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path(DEBIAN_FASHION_MNIST).exists(), reason='needs Fashion-MNIST')
def test_from_pretraining_to_an_exported_file_that_predicts(tmp_path):
  runs = tmp_path / 'runs'
  _python('experiments/finetuning/transfer.py', f'--workdir={runs}', '--seeds=3', '--pretrain_steps=600', '--steps=100',
          '--scratch_rates=3e-3')
  results = json.loads((runs / 'results.json').read_text())
  assert results['ci95'][0] > 0.01, results  # the lower end of the margin's interval
  assert results['finetuned'] > 0.7

  tuned = runs / 'tuned-0'
  record = records.read_run(tuned)
  assert set(record['pretrained']['new']) == {'head/kernel', 'head/bias'}
  images, labels = pipeline.open_data(run_config.cast(record['config']).data).arrays('test').values()
  model = trained.load(tuned)
  assert (model.probabilities(list(images), 500).argmax(1) == labels).mean() == pytest.approx(
      record['results']['test']['accuracy'], abs=1e-6)

  album = tmp_path / 'album'
  album.mkdir()
  for i in range(12):
    Image.fromarray(images[i, ..., 0]).save(album / f'{i:02}.png')
  writers.write(interop.read(tuned), tmp_path / 'model.stablehlo', 'stablehlo')
  printed = _python('-m', 'vit_jax.predict', tmp_path / 'model.stablehlo', album, '--format=json', '--top=10')
  rows = [{c['class']: c['probability'] for c in json.loads(line)['classes']} for line in printed.splitlines()]
  predicted = np.array([[row[name] for name in model.class_names] for row in rows])
  np.testing.assert_allclose(predicted, model.probabilities(list(images[:12])), atol=2e-6)
