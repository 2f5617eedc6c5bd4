"""A stack of equal blocks: parameters stacked on a leading `layers` axis, run as a scan or unrolled."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.parallel import blocks
from vit_jax.parallel.mesh import by_compiler


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a stack is run; never what it computes."""
  # One compiled block for all layers. False unrolls them: slower to compile, may run faster, and of the last block
  # only what a CLS token's classifier reads is computed.
  scan: bool = True
  # Recompute in the backward pass: nothing, all but matmuls, all. Without scan XLA undoes it on CPUs.
  remat: Literal['none', 'dots', 'full'] = 'none'
  blocks: Literal['jit', 'shard_map'] = 'jit'  # what places a block's collectives: the compiler, or `parallel.blocks`
  attention_kernel: str = 'none'  # what computes softmax attention: a key of `layers.kernels.KERNELS`


_POLICIES = {
    'none': blocks.all_but_gathered,  # only on a mesh
    'dots': jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, blocks.scattered),
    'full': jax.checkpoint_policies.nothing_saveable,
}


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

    scan = execution.scan and self.depth > 1  # a single block may change the shape of x

    def step_of(call):
      def step(x, layer):
        params, stats, inputs = layer
        block = nnx.merge(graphdef, params, stats)
        x, outputs = call(block, x, inputs)
        return x, (outputs, nnx.state(block, nnx.BatchStat))

      if execution.remat == 'none' and not by_compiler():
        return step
      # Inside a scan nothing can merge the recomputation with the forward pass, so the barrier is not needed.
      return jax.checkpoint(step, prevent_cse=not scan, policy=_POLICIES[execution.remat])

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
