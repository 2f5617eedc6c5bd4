import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import identities, texts

from vit_jax import exits
from vit_jax.launch.task import Task, slug

DNS_1035 = r'[a-z]([a-z0-9-]*[a-z0-9])?'


@given(texts, identities)
def test_a_label_is_a_dns_name_whatever_the_run_is_called(name, identity):
  label = Task(name, identity, ()).label
  assert re.fullmatch(DNS_1035, label) and label.endswith(identity)
  assert len(f'{label}-slice-999-9999-abcde') <= 63  # the longest name that JobSet derives from it


@given(texts, st.integers(1, 63))
def test_a_slug_is_a_dns_name(text, length):
  short = slug(text, length)
  assert re.fullmatch(DNS_1035, short) and len(short) <= max(length, len('run'))


@pytest.mark.parametrize('text, expected', [
    ('width16_steps1000', 'width16-steps1000'), ('"; rm -rf /', 'rm-rf'), ('B/16', 'b-16'), ('16x16', 'run-16x16'),
    ('--', 'run'), ('../..', 'run')])
def test_slugs_stay_readable(text, expected):
  assert slug(text) == expected


def test_only_runs_that_may_succeed_are_retried():
  assert {42, 128, 137, 143, 255} <= set(exits.RETRIED) and not {0, 1, 2, 127, 256} & set(exits.RETRIED)
