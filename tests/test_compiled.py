"""The folder of compiled programs: what it depends on, and that it stays small and can do without a home."""

import os

import compiled
import pytest


@pytest.fixture(name='cache')
def _cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return tmp_path


def test_it_is_kept_in_the_users_cache(cache):
  place, temporary = compiled.folder()
  assert place.is_relative_to(cache / 'vit_jax-tests') and place.is_dir() and not temporary
  compiled.close(place, temporary)
  assert compiled.folder() == (place, False) and place.is_dir()


def test_where_nothing_can_be_written_it_is_temporary(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  place, temporary = compiled.folder()
  assert temporary and place.is_dir()
  compiled.close(place, temporary)
  assert not place.exists()


def test_the_name_tells_versions_flags_and_processors_apart():
  names = [compiled.key('1', '', 'x86_64 avx'), compiled.key('2', '', 'x86_64 avx'),
           compiled.key('1', '--xla_a=1', 'x86_64 avx'), compiled.key('1', '', 'x86_64 avx avx2')]
  assert len(set(names)) == 4 and names[0] == compiled.key('1', '', 'x86_64 avx')
  assert compiled.processor() == compiled.processor() and len(compiled.processor()) > 3


def test_what_was_used_longest_ago_goes_first(tmp_path):
  for i in range(5):
    (tmp_path / f'{i}').write_bytes(bytes(10))
    os.utime(tmp_path / f'{i}', (1000 + (i * 3) % 5, 1000))
  compiled.prune(tmp_path, 20)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['1', '3']  # used at 1003 and 1004
  compiled.prune(tmp_path, 20)
  assert len(list(tmp_path.iterdir())) == 2
