"""What is said of a bucket that cannot be reached, whatever reads it."""

import pytest
from etils.epath import backend

from vit_jax import buckets, records, schema
from vit_jax.checkpoint import Checkpoints
from vit_jax.data import sources
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.interop import run_weights
from vit_jax.survival import workdir
from vit_jax.training import trained


@pytest.fixture(name='no_clients')
def _no_clients(monkeypatch):
  """As where no package that reaches a store is installed."""
  def missing(name):
    raise ImportError('Please install it to access that store')
  monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', missing)
  monkeypatch.setenv('EPATH_USE_TF', 'false')


def test_a_bucket_without_its_client_names_the_package(no_clients):
  with pytest.raises(UserError, match='pip install gcsfs'):
    workdir.check('gs://bucket/run')


@pytest.mark.parametrize('data, said', [
    ({'source': 'folder:pets', 'data_dir': 's3://bucket/d'}, 'data.data_dir=s3://bucket/d: .*`pip install s3fs`'),
    ({'source': 'pairs:gs://bucket/d'}, 'data.source=pairs:gs://bucket/d: .*`pip install gcsfs`')])
def test_data_in_a_bucket_without_its_client_name_the_package(no_clients, data, said):
  with pytest.raises(UserError, match=said):
    sources.open_sources(schema.cast(DataConfig, data, 'config.data'))


@pytest.mark.parametrize('read', [trained.load, records.read_run, run_weights.read])
def test_a_run_in_a_bucket_without_its_client_names_the_package(no_clients, read):
  with pytest.raises(UserError, match='gs://bucket/run.*`pip install gcsfs`'):
    read('gs://bucket/run')


def test_checkpoints_are_not_looked_for_where_none_can_be():
  with pytest.raises(UserError, match='s3://bucket/run: checkpoints are kept on disks and in Cloud Storage'):
    Checkpoints('s3://bucket/run', read_only=True)


@pytest.mark.parametrize('error, said', [
    (KeyError('nowhere'), 'x=nowhere://b: nowhere:// is not known'), (PermissionError('403'), 'x=nowhere://b: cannot'),
    (RuntimeError('bad token'), 'cannot be reached: RuntimeError: bad token')])
def test_errors_of_a_store_are_said(error, said):
  with pytest.raises(UserError, match=said):
    with buckets.reached('nowhere://b', 'x=nowhere://b'):
      raise error


def test_disks_and_absent_files_pass(tmp_path):
  buckets.check(tmp_path / 'absent', '')
  buckets.check_run(tmp_path / 'absent', '')
  with pytest.raises(FileNotFoundError):
    with buckets.reached('gs://b', ''):
      raise FileNotFoundError('absent')
