"""A stack of equal blocks: parameters stacked on a leading `layers` axis, run as a scan or unrolled."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.options import option
from vit_jax.parallel import blocks
from vit_jax.parallel.gathered import PRODUCT
from vit_jax.parallel.mesh import by_compiler, platform, split_parts


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a stack is run; never what it computes."""
  # One compiled block for all layers. False unrolls them: slower to compile, faster on accelerators, and of the last
  # block only what a CLS token's classifier reads is computed. None: as `scanned` chooses.
  scan: bool | None = option(None, hint='None: on accelerators up to 24 layers are unrolled')
  # Recompute in the backward pass: nothing, all but matmuls, all; auto: the first of these whose step fits (`tried`).
  remat: Literal['auto', 'none', 'dots', 'full'] = 'auto'
  blocks: Literal['jit', 'shard_map'] = 'jit'  # what places a block's collectives: the compiler, or `parallel.blocks`
  attention_kernel: str = 'auto'  # what computes softmax attention: `layers.kernels.KERNELS`, auto, or module:NAME

  def __post_init__(self):
    if self.attention_kernel == 'none':  # what runs before there was a choice have in their run.json
      object.__setattr__(self, 'attention_kernel', Execution.attention_kernel)


POLICIES = 'none', 'dots', 'full'  # what is recomputed in the backward pass, the least first


def tried(remat: str, platform: str) -> tuple[str, ...]:
  """The policies that a run tries on 'cpu', 'gpu' or 'tpu', in turn, until its step fits; `remat` is of `Execution`.

  A CPU's memory is that of the whole machine, and how much of it is left is not for a run to say.
  """
  if remat != 'auto':
    return (remat,)
  return POLICIES[:1] if platform == 'cpu' else POLICIES


_MOST_UNROLLED = 24  # layers, as many as a ViT-L has; with more, compiling takes over a minute


def scanned(scan: bool | None, depth: int, platform: str) -> bool:
  """Whether so many blocks are run as a scan on 'cpu', 'gpu' or 'tpu'; `scan` is that of `Execution`.

  Unrolled, the compiler sees both passes of a block, and writes less of it to the large memory. A single block may
  change the shape of what goes through it, and is never scanned.
  """
  if scan is None:
    scan = platform == 'cpu' or depth > _MOST_UNROLLED
  return scan and depth > 1


ATTENDED = 'attended'  # the name of what an attention kernel returns and keeps (`layers.kernels`)
_saved = jax.checkpoint_policies


def _matmuls(primitive, *args, **params) -> bool:
  """A policy for `jax.checkpoint`: keeps products with parameters, convolutions, and what attention kernels return."""
  kept = (_saved.dots_with_no_batch_dims_saveable, _saved.save_only_these_names(ATTENDED, PRODUCT))
  return any(policy(primitive, *args, **params) for policy in kept) or (
      primitive.name == 'conv_general_dilated' or
      primitive.name.startswith('dot_product_attention_fwd'))  # cuDNN's, which cannot be named


_POLICIES = {
    'dots': _saved.save_from_both_policies(
        _saved.save_from_both_policies(_saved.dots_with_no_batch_dims_saveable, blocks.scattered),
        _saved.save_only_these_names(PRODUCT)),
    'full': _saved.nothing_saveable,
}


def _policy(execution: Execution, scan: bool) -> Callable | None:
  """What a block keeps for the backward pass; None: what differentiation keeps, or the compiler chooses.

  Unrolled, nothing that a policy says is better than the compiler's choice: it sees both passes, and computes what is
  cheap again where it is used. What a checkpoint keeps it must write. The exceptions are blocks that gather tokens, or
  their weights explicitly. (Other weights are gathered again by `parallel.gathered`.) Of a scanned block the
  compiler sees one pass at a time, and would write every intermediate of a norm in float32.
  """
  if execution.remat in _POLICIES:
    return _POLICIES[execution.remat]
  if by_compiler() and (execution.blocks == 'shard_map' or split_parts('tokens') > 1):
    return blocks.all_but_gathered
  return _matmuls if scan and platform() != 'cpu' else None


class Stack(nnx.Module):
  """`depth` blocks of one shape. The parameters on disk are the same whether scanned or unrolled.

  Statistics that the blocks hold (batch norm's) are stacked like their parameters, and replaced as the blocks run.
  """

  def __init__(self, make_block: Callable[[nnx.Rngs], nnx.Module], depth: int, *, rngs: nnx.Rngs):
    @jax.vmap
    @nnx.transform_metadata(in_axes=0, out_axes=0, partition='layers')  # or the axis names shift by one
    def init_layers(rngs):
      return make_block(rngs)

    self.blocks = init_layers(rngs.split(depth))
    self.depth = depth

  def run(self, x: jax.Array, layer_inputs: Any, call: Callable, execution: Execution,
          call_last: Callable | None = None) -> tuple[jax.Array, Any]:
    """Runs the blocks.

    Args:
      x: the residual stream.
      layer_inputs: a tree of arrays with a leading [L] axis, one slice a block.
      call: (block, x, layer_input) -> (x, outputs).
      execution: scan or unroll, and what to recompute.
      call_last: in the place of `call` for the last block, if blocks are unrolled; scanned blocks are all one program.

    Returns:
      x after the last block, and the blocks' outputs stacked on a leading [L] axis.
    """
    graphdef, params, stats = nnx.split(self.blocks, nnx.Param, nnx.BatchStat)

    scan = scanned(execution.scan, self.depth, platform())

    def step_of(call):
      def step(x, layer):
        params, stats, inputs = layer
        block = nnx.merge(graphdef, params, stats)
        x, outputs = call(block, x, inputs)
        return x, (outputs, nnx.state(block, nnx.BatchStat))

      policy = _policy(execution, scan)
      # Inside a scan nothing can merge the recomputation with the forward pass, so the barrier is not needed.
      return step if policy is None else jax.checkpoint(step, prevent_cse=not scan, policy=policy)

    layers = (params, stats, layer_inputs)
    if scan:
      x, (outputs, stats) = jax.lax.scan(step_of(call), x, layers)
    else:
      every = []
      arrays, tree = jax.tree.flatten(layers)
      # The gradient of taking apart at once is one concatenation, not a padded array a layer.
      slices = zip(*(jnp.unstack(jnp.asarray(array)) for array in arrays))
      calls = [call] * (self.depth - 1) + [call_last or call]
      for own, step in zip(slices, map(step_of, calls), strict=True):
        x, out = step(x, tree.unflatten(own))
        every.append(out)
      outputs, stats = jax.tree.map(lambda *slices: jnp.stack(slices), *every)
    nnx.update(self.blocks, stats)
    return x, outputs
