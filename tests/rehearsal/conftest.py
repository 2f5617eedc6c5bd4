import json

import pytest

from vit_jax import config
from vit_jax.models import resnet


@pytest.fixture
def taught(tiny_config, tmp_path):
  """The tiny recipe with a teacher, whose run folder holds only run.json, as plans do not need the arrays."""
  c = config.defaults('resnet')
  c.model.update(resnet.size('ResNet-18'))
  record = {'config': json.loads(c.to_json()), 'config_hash': 'abc', 'results': {'step': 1},
            'data': {'classes': [str(i) for i in range(10)], 'image_shape': [32, 32, 1]}}
  (tmp_path / 'run.json').write_text(json.dumps(record))
  tiny_config.distill.teacher = str(tmp_path)
  return tiny_config
