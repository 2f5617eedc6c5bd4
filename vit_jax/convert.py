"""Weights from one form into another: python -m vit_jax.convert SRC OUT --to=bundle|hf|timm|npz|stablehlo

SRC is a run folder, a bundle, a folder or file of Hugging Face transformers or timm (safetensors), a .npz file of the
Vision Transformer's original code, or hf:OWNER/NAME. OUT is a folder; for npz and stablehlo a file.

  bundle      our own: parameters, config, preprocessing and class names in one folder
  hf          what transformers' from_pretrained loads
  timm        what timm.create_model('local-dir:OUT', pretrained=True) loads
  npz         the names of google-research/vision_transformer
  stablehlo   one file that runs without the code of the model: vit_jax.predict OUT PICTURES, or jax.export
"""

from absl import flags

from vit_jax import cli
from vit_jax.errors import UserError

_TO = flags.DEFINE_enum('to', 'bundle', ['bundle', 'hf', 'timm', 'npz', 'stablehlo'], 'The form of OUT.')
_STEP = flags.DEFINE_integer('step', None, 'Of which checkpoint of a run; default: the one that its test score is of.',
                             lower_bound=0)
_WITHOUT = flags.DEFINE_list('without', [], 'Patterns of names in SRC, such as head.*: tensors that may be unused, '
                             'missing or of another shape; all others must fit.')

_SIZE = flags.DEFINE_list('image_size', None, 'Make it a model for pictures of this size, 384 or HEIGHT,WIDTH: learned '
                          'positions are interpolated.')


def main(arguments: list[str]) -> int:
  if len(arguments) != 2:
    raise UserError('want two places: python -m vit_jax.convert SRC OUT --to=bundle|hf|timm|npz|stablehlo')
  source, out = arguments
  from vit_jax import host
  from vit_jax.interop import matching, sources, writers

  host.hush_absent_tpu()
  weights = sources.read(source, tuple(_WITHOUT.value), _STEP.value)
  if _SIZE.value:
    weights = matching.resized(weights, _size(_SIZE.value))
  writers.write(weights, out, _TO.value)
  height, width, channels = weights.image_shape
  classes = 'no head' if weights.headless else f'{weights.num_classes} classes'
  print(f'{out}: {weights.family}, {weights.size:,} parameters, {classes}, pictures of {height}x{width}x{channels}')
  return 0


def _size(texts: list[str]) -> tuple[int, int]:
  if len(texts) > 2 or not all(text.isdigit() and int(text) for text in texts):
    raise UserError(f'--image_size={",".join(texts)}: want 384 or HEIGHT,WIDTH')
  return int(texts[0]), int(texts[-1])


if __name__ == '__main__':
  cli.run(main, positional=True)
