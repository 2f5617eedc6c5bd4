"""Texts that try to break out of YAML, a shell, a path, and the $(NAME) of Kubernetes."""

import string

from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile('vit_jax', max_examples=40, deadline=None, database=None)
settings.load_profile('vit_jax')

_NASTY = ['"; rm -rf /', "'; rm -rf / #", '$(HOME) $$(HOME) ${HOME} `id`', '../../etc/passwd', '- a\n- b: c', '---\n',
          '{{x}} %s \\', 'y', '1e3', '0o7', '1:30', '~', '!!python/object:os.system', '&a *a', 'ü\u2028\x85', '# x',
          ' x ', 'a' * 300, '-rf', '']
_characters = st.characters(exclude_categories=['Cs'], exclude_characters='\0')  # \0 would end an argument
texts = st.one_of(st.sampled_from(_NASTY), st.text(_characters, max_size=40))
identities = st.text(string.hexdigits[:16], min_size=10, max_size=10)
_arguments = st.lists(texts.map('--config.x={}'.format), min_size=1, max_size=3).map(tuple)
programs = st.lists(_arguments, min_size=1, max_size=3)
