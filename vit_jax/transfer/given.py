"""What a run is given beside its data, weights to start from and a teacher, and their digests, which identify it."""

from typing import Any

from vit_jax.transfer import pretrained, teacher


def resolve(config: Any) -> Any:
  """A RunConfig with all that weights and a teacher set. Raises UserError as `pretrained` and `teacher` do."""
  return teacher.resolve(pretrained.resolve(config))
