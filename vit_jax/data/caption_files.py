"""Captions in files: a table of pictures and texts, or a text beside each picture; as people keep them."""

import concurrent.futures
import os
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from vit_jax.data import listing, tables
from vit_jax.data.text import QUESTION_END
from vit_jax.errors import UserError

# Of several tables the first is read. `metadata` is what the Hugging Face hub asks for; Flickr8k has a captions.txt.
TABLES = tuple(f'{stem}.{kind}' for stem in ('captions', 'questions', 'metadata')
               for kind in ('jsonl', 'csv', 'tsv')) + ('captions.txt',)
BESIDE = '.txt'  # the suffix of a text beside a picture: each line is a caption
_CAPTION = re.compile(r'((alt|image)[ _-])?(caption|text|description|title|sentence)s?([ _-]?\d+|[ _-][a-z]{2,3})?',
                      re.I)
_QUESTION = re.compile(r'questions?', re.I)
_ANSWER = re.compile(r'(multiple[ _-]choice[ _-])?answers?([ _-]?\d+)?', re.I)  # VQAv2 has multiple_choice_answer

Rows = dict[str, tuple[str, ...]]


def clean(text: str) -> str:
  """A caption with single spaces and composed characters, so that equal ones are equal."""
  return unicodedata.normalize('NFC', ' '.join(text.split()))


def is_caption(name: str) -> bool:
  """Whether a column or a feature of this name holds captions."""
  return bool(_CAPTION.fullmatch(name.strip()))


def table_in(folder: os.PathLike) -> Any | None:
  """The path of the table of a folder, or None."""
  return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def read_table(path: os.PathLike) -> Rows:
  """{key of a picture's name: its captions}, with () for a picture whose captions are empty.

  A question and its answer in a row are a caption too, with a tab between (`data.text`).

  Raises:
    UserError: it is no table of pictures and captions; the message has the line.
  """
  found: dict[str, list[str]] = {}
  for line, fields in tables.rows(path):
    file = tables.file_column(fields)
    columns = list(filter(is_caption, fields))
    asked = next((name for name in fields if _QUESTION.fullmatch(name.strip())), None)
    answers = [name for name in fields if _ANSWER.fullmatch(name.strip())]
    if file is None or not (columns or asked and answers):
      raise UserError(f'{path}, line {line}: has {", ".join(map(repr, fields)) or "nothing"}; expected the name of a '
                      'picture as file_name (or image, path, ..) and its text as caption (or text, ..), or a question '
                      'and its answer')
    if not isinstance(fields[file], str) or not fields[file].strip():
      raise UserError(f'{path}, line {line}: {file} is {fields[file]!r}; expected the name of a picture')
    texts = found.setdefault(tables.key(fields[file]), [])
    for name in columns:
      texts += _texts(fields[name], f'{path}, line {line}: {name}')
    if asked:
      texts += _answered(fields, asked, answers, f'{path}, line {line}: ')
  return {name: tuple(dict.fromkeys(texts)) for name, texts in found.items()}


def _answered(fields, asked, answers, where):
  """The question of a row with each of its answers; questions in a list have one answer each, in a list as well."""
  questions = _texts(fields[asked], where + asked)
  found = [text for name in answers for text in _texts(fields[name], where + name)]
  if isinstance(fields[asked], list) and len(questions) != len(found):
    raise UserError(f'{where}{len(questions)} questions in {asked}, and {len(found)} answers; expected one for each')
  questions = questions if isinstance(fields[asked], list) else questions * len(found)
  return [f'{question}{QUESTION_END}{answer}' for question, answer in zip(questions, found)]


def beside(pictures: Iterable[str]) -> list[tuple[str, ...]]:
  """The captions in the .txt beside each picture, a line each; () where there is none, or an empty one."""
  def captions(picture):
    path = os.path.splitext(picture)[0] + BESIDE
    try:
      lines = tables.decoded(path, listing.read(path)).splitlines()
    except FileNotFoundError:
      return ()
    return tuple(dict.fromkeys(filter(None, map(clean, lines))))

  with concurrent.futures.ThreadPoolExecutor() as threads:
    return list(threads.map(captions, pictures))


def _texts(value, where):
  """The captions in a value: a text, a number, nothing, or a list of these."""
  if isinstance(value, list):
    return [text for item in value for text in _texts(item, where)]
  if value is None or value != value:  # null, or NaN of a table that was written by pandas
    return []
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    raise UserError(f'{where} is {value!r}; expected a text, or a list of texts')
  return [text] if (text := clean(str(value))) else []
