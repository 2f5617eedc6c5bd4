import pathlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import texts

from vit_jax.errors import UserError
from vit_jax.launch import files

trees = st.recursive(st.one_of(texts, st.integers(), st.booleans()),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@given(trees)
def test_what_is_written_is_read_back(tree):
  assert list(yaml.safe_load_all(files.to_yaml(tree))) == [tree]  # one document


@pytest.mark.parametrize('word', ['y', 'n', 'off', '1e3', '0o7', '1:30', '0x1', '.inf', '~', 'null', '=', '2x4'])
def test_words_that_other_readers_may_parse_as_numbers_are_quoted(word):
  assert files.to_yaml([word]).strip() in (f'- "{word}"', f"- '{word}'")


def test_files_of_a_sweep_are_replaced_and_others_are_kept(tmp_path):
  out = tmp_path / 'a' / 'b'
  assert files.write(str(out), {'x': {'n': 1}, 'y': {}}) == [out / 'x.yaml', out / 'y.yaml']
  files.write(str(out), {'x': {'n': 2}, 'y': {}, 'z': {}})
  (out / 'notes.txt').write_text('kubectl does not read this')
  files.write(str(out), {'x': {'n': 3}, 'y': {}, 'z': {}})
  assert yaml.safe_load((out / 'x.yaml').read_text()) == {'n': 3}
  with pytest.raises(UserError, match=r'got y.yaml and 1 more. .* another folder'):
    files.write(str(out), {'x': {'n': 4}})
  assert yaml.safe_load((out / 'x.yaml').read_text()) == {'n': 3}


def test_a_file_is_not_a_folder(tmp_path):
  (tmp_path / 'out').write_text('')
  with pytest.raises(UserError, match='expected a folder, got a file'):
    files.write(str(pathlib.Path(tmp_path / 'out')), {'x': {}})
