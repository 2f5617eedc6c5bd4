"""The affine map that every family is built of, with its logical axes, its role and its fans declared."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.parallel import blocks
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.gathered import with_gathered

Initializer = Callable[[jax.Array, tuple[int, ...], int, int], jax.Array]  # (key, shape, fan_in, fan_out) -> float32


def xavier_uniform(key, shape, fan_in, fan_out):
  """U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16): ViT's attention and MLP kernels."""
  limit = math.sqrt(6 / (fan_in + fan_out))
  return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


def lecun_normal(key, shape, fan_in, fan_out):
  """Truncated normal of variance 1 / fan_in (LeCun et al. 1998, sec. 4.6): ViT's patch embedding (Flax's default)."""
  del fan_out
  std = math.sqrt(1 / fan_in) / 0.87962566103423978  # the deviation that truncation at two sigma leaves
  return jax.random.truncated_normal(key, -2, 2, shape, jnp.float32) * std


def normal_002(key, shape, fan_in, fan_out):
  """N(0, 0.02^2), whatever the fans: Swin's and ConvNeXt's kernels (their code cuts it off at +-2, so nowhere)."""
  del fan_in, fan_out
  return 0.02 * jax.random.normal(key, shape, jnp.float32)


def init_power(role: str, kernel_init: Initializer) -> float:
  """The initial deviation goes as width to this power: all initialisers here but one go as 1 / sqrt(fan), and an
  input map's fan does not grow with the width."""
  return 0.0 if role == 'input' or kernel_init is normal_002 else -0.5


def zeros(key, shape, fan_in, fan_out):
  """The logits head: all classes equal at the start (Dosovitskiy et al. 2021, D.1, for fine-tuning; big_vision)."""
  del key, fan_in, fan_out
  return jnp.zeros(shape, jnp.float32)


def tiny_normal(key, shape):
  """N(0, 1e-6^2): the MLP's biases in the original code (Tolstikhin et al. 2021 and Dosovitskiy et al. 2021)."""
  return 1e-6 * jax.random.normal(key, shape, jnp.float32)


def parameter(value: jax.Array, axes: Sequence[str | None], role: str = 'hidden', *, fan_in: int = 0,
              init_power: float = 0.0, ends_branch: bool = False, rows: int = 0, apart: int | None = None) -> nnx.Param:
  """A parameter with one logical axis name per dimension and its place in the network.

  What is declared here is of one layer: a stack adds an axis to `axes` and leaves the rest as it is. A parametrisation
  (`optimisation.parametrisation`) reads all of it and nothing else, so that a new family has nothing to do for it.

  Args:
    value: float32.
    axes: names that `parallel.rules` maps to mesh axes; None is never split.
    role: 'input' (embeddings), 'hidden', or 'output' (the head): `params_non_embedding` counts the hidden ones.
      The width grows at the outputs of the first, at both ends of the second and at the inputs of the third.
    fan_in: the inputs that each output sums over; 0 for what is no map (biases, norms, embeddings).
    init_power: the initial deviation goes as width ** init_power.
    ends_branch: a residual branch's output is linear in it (its last kernel and bias).
    rows: so many leading axes are summed over: a matrix of them by the others. 0: it is no matrix.
    apart: the axis, counted from the last (-1), that lists several matrices.
  """
  assert len(axes) == value.ndim, (axes, value.shape)
  # Models are built without a mesh and placed by `parallel`. The caller's setting of Flax's eager sharding stays.
  return nnx.Param(value, eager_sharding=False, out_sharding=tuple(axes), role=role, fan_in=fan_in,
                   init_power=init_power, ends_branch=ends_branch, rows=rows, apart=apart)


class Dense(nnx.Module):
  """y = x W + b, contracting the trailing `in_shape` dimensions of x into `out_shape`.

  On a CPU it is computed as one matmul of flat matrices: there XLA turns the gradient of a product over several batch
  dimensions into a transposed copy that costs as much as the product. Elsewhere the batch dimensions stay: a TPU keeps
  arrays in tiles, and flattening a number of tokens that these do not divide copies the array. Of `in_shape` and
  `out_shape` only the first dimension may be split over a mesh, so that flattening those moves no data.

  A fused qkv kernel [D, H, 3, K] is three maps of fan_out H*K each, which the axis `apart` = -2 of `out_shape` lists.
  """

  def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], axes: Sequence[str | None], *, rngs: nnx.Rngs,
               role: str = 'hidden', apart: int | None = None, kernel_init: Initializer = xavier_uniform,
               bias_init: Callable | None = None, use_bias: bool = True, ends_branch: bool = False,
               dtype=jnp.float32):
    self.in_shape, self.out_shape, self.dtype = tuple(in_shape), tuple(out_shape), dtype
    self.axes, self.apart = tuple(axes), apart
    fan_in, fan_out = math.prod(in_shape), math.prod(out_shape) // (self.out_shape[apart] if apart else 1)
    kernel = kernel_init(rngs.params(), self.in_shape + self.out_shape, fan_in, fan_out)
    self.kernel = parameter(kernel, axes, role, fan_in=fan_in, init_power=init_power(role, kernel_init),
                            ends_branch=ends_branch, rows=len(self.in_shape), apart=apart)
    bias = bias_init(rngs.params(), self.out_shape) if bias_init else jnp.zeros(self.out_shape, jnp.float32)
    self.bias = parameter(bias, axes[len(in_shape):], role, ends_branch=ends_branch) if use_bias else None

  def __call__(self, x: jax.Array, flat: bool = False) -> jax.Array:
    """[..., *in_shape] -> [..., *out_shape] in `dtype`.

    `flat`: what reads the result, or has written x, is a kernel that takes whole channels. A compiler that is left to
    itself multiplies by a kernel [D, H, K] in that shape, and copies x or the gradient into a layout that fits.
    """
    return self._map(x, self.kernel[...], None if self.bias is None else self.bias[...], flat)

  def each(self, x: jax.Array) -> tuple[jax.Array, ...]:
    """The maps that the axis `apart` lists: that axis of the result taken apart.

    On a CPU they are one product. Elsewhere each is one, because what a TPU takes out of the middle of a result, and
    puts back for the gradient, is copied between layouts.
    """
    dim = self.apart + len(self.in_shape) + len(self.out_shape)
    if mesh_lib.platform() == 'cpu':
      return jnp.unstack(self(x), axis=self.apart)
    kernels = jnp.unstack(self.kernel[...], axis=dim)
    biases = [None] * len(kernels) if self.bias is None else jnp.unstack(self.bias[...], axis=self.apart)
    return tuple(self._map(x, *one) for one in zip(kernels, biases, strict=True))

  def _map(self, x, kernel, bias, flat=False):
    kernel, inputs = kernel.astype(self.dtype), len(self.in_shape)
    in_shape, out_shape = kernel.shape[:inputs], kernel.shape[inputs:]  # in a `shard_map` block, those of a part
    fan_in = math.prod(in_shape)
    batch = x.shape[:x.ndim - inputs]
    rows = (-1,) if mesh_lib.platform() == 'cpu' else batch
    x = x.astype(self.dtype).reshape(*rows, fan_in)
    # Flat before it is gathered: a TPU fills a last axis of 64 up to 128, and would send that too.
    kernel = kernel.reshape(fan_in, -1)
    kernel = jax.lax.optimization_barrier(kernel) if flat else kernel
    y = with_gathered(jnp.matmul, x, kernel, (self.axes[0], self.axes[inputs]))
    if bias is not None:
      y = y + blocks.on_first_part(bias, self.axes[0]).astype(self.dtype).reshape((1,) * len(rows) + (-1,))
    return y.reshape(*batch, *out_shape)
