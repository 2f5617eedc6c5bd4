"""Names as classes: `predict --names='a cat,a dog' --template='a drawing of {}'`."""

from collections.abc import Sequence

from vit_jax.errors import UserError


def check(names: Sequence[str], templates: Sequence[str]) -> None:
  """Raises UserError for fewer than two names, one twice, or a template without {}, the place of the name."""
  if len(names) < 2 or '' in names or len(set(names)) < len(names):
    raise UserError(f'--names={",".join(names)}: expected two different names or more, with commas between')
  for template in templates:
    if '{}' not in template:
      raise UserError(f"--template={template!r}: expected a text with {{}} in the place of the name, as in 'a drawing "
                      "of {}'")
