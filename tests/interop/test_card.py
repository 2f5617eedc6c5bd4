"""The model card of a bundle, and the repository for huggingface.co."""

import dataclasses
import json
import pathlib
import sys

import command_line
import jax
import numpy as np
import pytest
import yaml

from vit_jax import models, records
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import bundle, card, hub, sources, writers
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

RECORD = {
    'config': {'family': 'vit', 'objective': 'classify', 'seed': 0, 'model': {'width': 16},
               'data': {'batch_size': 32, 'source': 'folder:/home/someone/pets', 'data_dir': '~/private/data'},
               'optimizer': {'name': 'adamw', 'learning_rate': 1e-3}, 'pretrained': {'path': 'gs://bucket/x/start'},
               'system': {'local_dir': '/dev/shm/x'}},
    'config_hash': '0123456789', 'params': 12_345, 'params_non_embedding': 12_000, 'flops_per_example_forward': 10**6,
    'flops_per_example_train': 3 * 10**6, 'data': {'name': 'pets', 'unique_examples': 900, 'split': {'val': 100}},
    'devices': {'count': 1, 'kind': 'cpu'}, 'code': 'abc', 'git': 'def', 'codes': [{'from_step': 0, 'code': 'abc'}],
    'results': {'step': 50, 'steps': 50, 'test_examples': 400, 'test': {'loss': 0.5, 'accuracy': 0.75},
                'val': {'loss': 0.4, 'accuracy': 0.8}}}


def _weights(step=None, classes=2, **model):
  config = {'patch_size': 4, 'width': 16, 'depth': 1, 'mlp_dim': 32, 'num_heads': 2, **model}
  shapes = PureModel('vit', models.vit.Config(**config), (8, 8, 1), classes).param_shapes()
  params = jax.tree.map(lambda s: np.full(s.shape, 0.01, np.float32), shapes)
  return Weights('runs/pets-0123456789', 'vit', config, params, {}, Preprocessing((8, 8), 1), ('cat: "a"', 'dog'), step)


def _read(text):
  """(metadata, body) of a card."""
  front, body = text.removeprefix('---\n').split('\n---\n', 1)
  return yaml.safe_load(front), body


def test_a_card_says_what_the_run_measured():
  metadata, body = _read(card.write(_weights(50), RECORD, 'apache-2.0', 'me/pets'))
  assert (metadata['license'], metadata['datasets'], metadata['pipeline_tag']) == (
      'apache-2.0', ['pets'], 'image-classification')
  (index,) = metadata['model-index']
  found = {(result['dataset']['split'], metric['type']): metric['value']
           for result in index['results'] for metric in result['metrics']}
  assert found == {('test', 'loss'): 0.5, ('test', 'accuracy'): 0.75, ('val', 'loss'): 0.4, ('val', 'accuracy'): 0.8}
  for text in ('| pets | test | 400 | accuracy | 0.75 |', '| seed | 0 |', '| parameters | 12,345 (12,000 without',
               '| compute | 4.8e+09 FLOPs |', '| forward pass | 0.001 GFLOPs per picture |', '| code | abc |',
               'uncertain by up to 5 points', 'hf:me/pets'):
    assert text in body, text


def test_a_card_of_several_labels_says_so():
  _, body = _read(card.write(dataclasses.replace(_weights(), several_labels=True)))
  assert 'can have several of 2 labels, each with its own probability' in body and 'apart' not in body


def test_a_card_names_no_place_of_the_machine_where_the_model_was_trained():
  text = card.write(_weights(50), RECORD)
  assert not [word for word in ('someone', 'private', 'bucket', '/dev/shm') if word in text]
  assert 'folder:pets' in text


def test_results_of_another_step_are_left_out():
  metadata, body = _read(card.write(_weights(25), RECORD))
  assert 'model-index' not in metadata and 'Nothing was measured with exactly these parameters' in body


def test_a_card_of_weights_from_elsewhere_claims_nothing():
  metadata, body = _read(card.write(_weights()))
  assert not {'license', 'datasets', 'model-index'} & set(metadata)
  assert 'No licence was given' in body and 'is not recorded here' in body


def test_the_hub_reads_the_results():
  hub_client = pytest.importorskip('huggingface_hub')
  found = hub_client.ModelCard(card.write(_weights(50), RECORD, 'mit')).data
  assert [(r.dataset_split, r.metric_type, r.metric_value) for r in found.eval_results][:2] == [
      ('test', 'loss', 0.5), ('test', 'accuracy', 0.75)]
  assert found.license == 'mit'


def test_a_bundle_has_the_card_of_its_run(tmp_path):
  records.write_run(tmp_path / 'run', RECORD)
  weights = _weights(50)
  bundle.write(Weights(str(tmp_path / 'run'), *[getattr(weights, name) for name in (
      'family', 'model', 'params', 'stats', 'preprocessing', 'class_names', 'step')]), tmp_path / 'bundle')
  metadata, _ = _read((tmp_path / 'bundle' / 'README.md').read_text())
  assert metadata['model-index'][0]['name'] == 'run'


@pytest.mark.parametrize('step, data, measured', [(50, 'pets', True), (40, 'pets', False), (50, 'other', False)])
def test_calibration_is_measured_where_the_same_weights_were_evaluated(tmp_path, step, data, measured):
  records.write_run(tmp_path / 'run', RECORD)
  weights = dataclasses.replace(_weights(50), source=str(tmp_path / 'run'))
  assert 'adversarial ones, calibration,' in card.write(weights, card.record_of(weights))
  (tmp_path / 'run/evaluation').mkdir()
  (tmp_path / 'run/evaluation/test.json').write_text(json.dumps({'step': step, 'data': data, 'ece': 0.0625}))
  text = card.write(weights, card.record_of(weights))
  assert ('| pets | test | 400 | expected_calibration_error | 0.0625 |' in text) == measured
  assert ('adversarial ones, calibration,' in text) != measured


@pytest.mark.parametrize('model, transformers', [({'pool': 'cls'}, True), ({'pool': 'gap'}, False)])
def test_a_repository_has_the_files_of_transformers_where_it_has_the_model(tmp_path, capsys, model, transformers):
  writers.write(_weights(**model), tmp_path / 'out', 'hub:me/pets', 'mit')
  files = {path.name for path in (tmp_path / 'out').iterdir()}
  theirs = {'model.safetensors', 'config.json', 'preprocessor_config.json'}
  assert files == {'README.md', 'model.json', 'weights.safetensors', *(theirs if transformers else ())}
  metadata, body = _read((tmp_path / 'out' / 'README.md').read_text())
  assert metadata['library_name'] == ('transformers' if transformers else 'vit_jax')
  assert ("AutoModelForImageClassification.from_pretrained('me/pets')" in body) == transformers
  assert ('no files of transformers' in capsys.readouterr().err) != transformers
  assert sources.read(tmp_path / 'out').class_names == ('cat: "a"', 'dog')


def test_what_was_pushed_is_read_back_and_imports_no_code(tmp_path, monkeypatch):
  writers.write(_weights(), tmp_path / 'out', 'hub:me/pets')
  monkeypatch.setattr(hub, 'fetch', lambda name: pathlib.Path(tmp_path / 'out'))
  assert sources.read('hf:me/pets').num_classes == 2
  fields = json.loads((tmp_path / 'out' / 'model.json').read_text())
  (tmp_path / 'out' / 'model.json').write_text(json.dumps(fields | {'family': 'antigravity:FAMILY'}))
  with pytest.raises(UserError, match='not imported for a download'):
    sources.read('hf:me/pets')


class _Api:
  """A stand-in for HfApi."""
  calls: list = []

  def create_repo(self, name, exist_ok):
    self.calls.append(('create', name))

  def upload_folder(self, repo_id, folder_path, commit_message):
    self.calls.append(('upload', repo_id, sorted(path.name for path in pathlib.Path(folder_path).iterdir())))
    return f'https://hub.test/{repo_id}'


def test_a_folder_is_uploaded(tmp_path, monkeypatch):
  client = pytest.importorskip('huggingface_hub')
  monkeypatch.setattr(client, 'HfApi', _Api)
  (tmp_path / 'README.md').touch()
  assert hub.push(tmp_path, 'me/pets') == 'https://hub.test/me/pets'
  assert _Api.calls == [('create', 'me/pets'), ('upload', 'me/pets', ['README.md'])]
  monkeypatch.setattr(_Api, 'create_repo', lambda self, name, exist_ok: 1 / 0)
  with pytest.raises(UserError, match='hub:me/pets: upload failed.*hf auth login'):
    hub.push(tmp_path, 'me/pets')


def test_a_push_without_the_client_says_how_to_install_it(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match='expected huggingface_hub to be installed: pip install'):
    hub.push(tmp_path, 'me/pets')


def test_the_command_uploads_nothing_unless_told(tmp_path):
  bundle.write(_weights(), tmp_path / 'pets')
  convert = lambda *words: command_line.run('convert', tmp_path / 'pets', tmp_path / 'out', *words,
                                            env=command_line.ON_CPU)
  for words, message in {('--to=hub:pets',): '--to=hub:pets: expected hub:OWNER/NAME',
                         ('--push',): '--push with --to=bundle: only hub:OWNER/NAME can be uploaded',
                         ('--to=npz', '--license=mit'): '--license with --to=npz: only a bundle',
                         ('--to=hub:me/pets', '--license=Mine alone'): "license='Mine alone': expected a name"}.items():
    done = convert(*words)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / 'out').exists(), done.stderr
  done = convert('--to=hub:me/pets', '--license=mit')
  assert done.returncode == 0, done.stderr
  assert f'not uploaded: read {tmp_path}/out/README.md, then `hf upload me/pets {tmp_path}/out .`' in done.stdout
  assert _read((tmp_path / 'out' / 'README.md').read_text())[0]['license'] == 'mit'
