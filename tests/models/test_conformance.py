"""Every family keeps the contract of `vit_jax.models.family`: the checks of `conformance` over tiny models of each."""

import subprocess
import sys

import conformance
import jax
import pytest
from conformance import Case
from flax import nnx
from jax.sharding import AxisType

from vit_jax.errors import UserError
from vit_jax.layers.dense import Dense
from vit_jax.layers.stack import Execution
from vit_jax.models import FAMILIES, PureModel

SHAPE = (18, 23, 3)  # no stride, patch or window divides it
ENCODER = dict(width=16, depth=2, mlp_dim=32, num_heads=2)


def _case(family, shape=SHAPE, idle=None, **fields):
  return Case(family, FAMILIES[family].config(**fields), shape, idle)


CASES = {
    'vit': _case('vit', **ENCODER, stem='conv', patch_size=4, dropout=0.1),
    'vit-hybrid': _case('vit', **ENCODER, stem='resnet', stem_depths=(2, 1), stem_width=8, patch_size=8),
    'vit-local': _case('vit', **ENCODER | dict(width=32, mlp_dim=64), stem='conv', patch_size=4, global_tokens=2,
                       attention='local', attention_radius=1),
    # What is added to all keys alike changes no weight.
    'vit-registers': _case('vit', (16, 24, 3), ('key_norm', 'bias'), **ENCODER, patch_size=8, global_tokens=2,
                           qk_norm=True, pre_norm=True, last_norm='pooled', pool='gap', mlp='swiglu', layer_scale=0.5),
    'vit-quick': _case('vit', (16, 24, 3), **ENCODER, patch_size=8, gelu='quick', last_norm='none',
                       pos_embed='rope2d_centred'),
    'deit': _case('deit', **ENCODER, stem='conv', patch_size=4, drop_path=0.3),
    'swin': _case('swin', width=16, depths=(2, 4), num_heads=(2, 4), window_size=3, patch_size=2, drop_path=0.3),
    'swin-v2': _case('swin', width=16, depths=(2, 2), num_heads=(2, 4), window_size=3, patch_size=2, cosine=True,
                     position_bias='network', post_norm=True, trained_windows=(4, 3), mask=100.0),
    'resnet-basic': _case('resnet', block='basic', depths=(1, 2), widths=(8, 16), stem_width=8),
    'resnet-d': _case('resnet', depths=(1, 1), widths=(16, 32), stem='deep', stem_width=8, deep_widths=(4, 6),
                      average_shortcut=True),
    'resnet-bottleneck': _case('resnet', depths=(3, 1), widths=(16, 32), stem='full', stem_width=8),
    'resnext': _case('resnet', depths=(1, 2), widths=(16, 32), stem_width=8, bottleneck=1, groups=4),
    'regnet_y': _case('resnet', depths=(1, 3), widths=(16, 24), stem='half', stem_width=8, bottleneck=1, group_width=8,
                      squeeze_excite=True),
    'convnext': _case('convnext', depths=(2, 3), widths=(8, 16), patch_size=4, drop_path=0.3, layer_scale=0.5),
    'convnext-v2': _case('convnext', depths=(2, 1), widths=(8, 16), patch_size=4, layer_scale=None, grn=True,
                         gelu='tanh', epsilon=1e-5),
    # The norms take away again what is the same for all channels of a token.
    'mixer': _case('mixer', (16, 24, 3), ('token_mixing', 'down', 'bias'), width=16, depth=2, tokens_mlp_dim=8,
                   mlp_dim=32, patch_size=4, dropout=0.1, drop_path=0.3),
}
ONE_A_FAMILY = list({case.family: name for name, case in reversed(CASES.items())}.values())


def test_every_family_has_a_case():
  assert {case.family for case in CASES.values()} == set(FAMILIES)


OF_A_FAMILY = (conformance.starts_with_equal_classes, conformance.computes_the_same_on_a_mesh)  # of one case each


@pytest.mark.parametrize('name, check', [
    pytest.param(name, check, marks=[] if name in ONE_A_FAMILY else pytest.mark.slow)
    for name in CASES for check in conformance.CHECKS if check not in OF_A_FAMILY or name in ONE_A_FAMILY],
    ids=lambda value: getattr(value, '__name__', value))
def test_conformance(name, check):
  check(CASES[name])


@pytest.mark.parametrize('name', ONE_A_FAMILY)
def test_names_that_do_not_exist_are_refused_with_those_that_do(name):
  model = CASES[name].model()
  with pytest.raises(UserError, match=f"capture='feature': {model.name} has no such .*; did you mean 'features'"):
    model.apply(*conformance.inputs(CASES[name]), CASES[name].images, capture=('feature',))


@pytest.mark.parametrize('option, value', [('blocks', 'shard_map'), ('attention_kernel', 'splash')])
@pytest.mark.parametrize('family', FAMILIES)
def test_options_that_a_family_would_ignore_are_refused(family, option, value):
  build = lambda: PureModel(family, FAMILIES[family].config(), (64, 64, 3), 3, Execution(**{option: value}))
  if option in FAMILIES[family].honours:
    build()
  else:
    with pytest.raises(UserError, match=f'execution.{option}={value} is for vit and deit, not for {family}: set it to'):
      build()


def test_importing_and_building_leave_the_process_as_it_was():
  """Flax's eager sharding, which splits parameters as they are made, stays on or off, and does not touch ours."""
  code = 'from flax import nnx; from vit_jax import models; print(nnx.using_eager_sharding())'
  assert subprocess.check_output([sys.executable, '-c', code], text=True).strip() == 'True'
  with nnx.use_eager_sharding(True), jax.set_mesh(jax.make_mesh((2,), ('embed',), axis_types=(AxisType.Auto,))):
    layer = Dense((4,), (2,), ('embed', None), rngs=nnx.Rngs(0))
    assert nnx.using_eager_sharding() and layer.kernel[...].sharding.is_fully_replicated
