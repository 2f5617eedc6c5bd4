"""What recipes import: `config.defaults(family)` is the config that a recipe starts from."""

from vit_jax.recipe import load_recipe
from vit_jax.training.config import defaults

__all__ = ['defaults', 'load_recipe']
