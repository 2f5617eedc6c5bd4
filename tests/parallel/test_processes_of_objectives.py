"""Two processes (gloo) train what one does, whatever the objective."""

import numpy as np
import pytest
from PIL import Image
from several_processes import finish, train

from vit_jax import records

RECIPE = '''
from vit_jax import config

def get_config():
  c = config.defaults('vit', {objective!r})
  c.model.update(dict(patch_size=2, width=16, depth=2, mlp_dim=32, num_heads=2))
  c.data.source, c.data.batch_size = {source!r}, 16
  c.train.steps, c.evaluate.every, c.system.log_every = 8, 4, 1
  c.loss.update({loss!r})
  return c
'''
TEXT = dict(width=16, depth=1, mlp_dim=16, num_heads=2)
LOSSES = {'reconstruct': dict(decoder_width=16, decoder_depth=1, decoder_mlp_dim=16, decoder_num_heads=2),
          'contrast': dict(text=TEXT, width=8), 'classify': dict(name='sigmoid')}


@pytest.fixture(name='pairs', scope='module')
def _pairs(tmp_path_factory):
  """Eighty pictures with forty captions, so that some of a batch are equal."""
  folder, rng = tmp_path_factory.mktemp('pairs'), np.random.default_rng(0)
  for i in range(80):
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f'{i:02}.png')
  rows = ''.join(f'{i:02}.png,picture number {i % 40}\n' for i in range(80))
  (folder / 'captions.csv').write_text('image,caption\n' + rows)
  return folder


@pytest.fixture(name='tagged', scope='module')
def _tagged(tmp_path_factory):
  """Eighty pictures with any of three labels each."""
  folder, rng = tmp_path_factory.mktemp('tagged'), np.random.default_rng(0)
  labels = rng.random((80, 3)) < (0.5, 0.3, 0.1)
  for i, row in enumerate(labels):
    Image.fromarray((rng.integers(0, 128, (8, 8, 3)) + 127 * row).astype(np.uint8)).save(folder / f'{i:02}.png')
  rows = ''.join(f'{i:02}.png,{",".join(map(str, row.astype(int)))}\n' for i, row in enumerate(labels))
  (folder / 'labels.csv').write_text('image,red,green,blue\n' + rows)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('objective', LOSSES)
def test_two_processes_train_as_one(objective, pairs, tagged, tmp_path):
  recipe = tmp_path / 'recipe.py'
  source = {'contrast': f'pairs:{pairs}', 'classify': f'folder:{tagged}'}.get(objective, 'digits')
  recipe.write_text(RECIPE.format(objective=objective, source=source, loss=LOSSES[objective]))
  rows = {}
  for count in (1, 2):
    codes, outputs = finish(train(recipe, tmp_path / str(count), count))
    assert codes == [0] * count, outputs
    rows[count] = records.read_rows(tmp_path / str(count) / 'metrics.jsonl')
  assert len(rows[1]) == len(rows[2]) and {'train', 'val', 'test'} == {row['split'] for row in rows[1]}
  for one, two in zip(rows[1], rows[2], strict=True):
    assert one.keys() == two.keys()
    for name in one:
      if name in ('loss', 'loss@256', 'map', 'f1'):
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5, err_msg=f'{name} at step {one["step"]}')
