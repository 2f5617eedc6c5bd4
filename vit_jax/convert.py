"""Converts weights between formats: python -m vit_jax.convert SRC OUT --to=FORMAT

SRC is a run folder, a bundle, a folder or file of Hugging Face transformers or timm (safetensors), a .npz file of the
original Vision Transformer code, or hf:OWNER/NAME. OUT is a folder, or a file for npz, onnx and
stablehlo.

  bundle      the format of this project: parameters, config, preprocessing and class names in one folder
  hf          for from_pretrained of transformers
  timm        for timm.create_model('local-dir:OUT', pretrained=True)
  npz         for google-research/vision_transformer
  onnx        one file for ONNX runtimes (with the extra onnx): pictures in, logits and probabilities out
  stablehlo   one file that runs without the model code, with vit_jax.predict OUT PICTURES or jax.export; of a run of
              objective=contrast both towers and the tokenizer, with predict --names and vit_jax.search too
  hf-mae      for ViTMAEForPreTraining.from_pretrained of transformers: SRC is a run of objective=reconstruct, which is
              written with its decoder; the other formats get its encoder alone
  hf-pairs    for SiglipModel or CLIPModel of transformers: SRC is a run of objective=contrast, which is written with
              both towers and its tokenizer, if that is a file; the other formats get its image tower alone
  hub:OWNER/NAME
              a repository of huggingface.co: a bundle with its model card, and the files of transformers where that has
              the model. Nothing is uploaded without --push
"""

import shlex

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError, nearest
from vit_jax.printable import say


class _Formats(flags.EnumParser):
  """One of the formats, or hub:OWNER/NAME."""

  def parse(self, argument):
    if argument.startswith('hub:') or argument in self.enum_values:
      return argument
    raise ValueError(f'expected {", ".join(self.enum_values)} or hub:OWNER/NAME{nearest(argument, self.enum_values)}')


_TO = flags.DEFINE_enum('to', 'bundle', ['bundle', 'hf', 'timm', 'npz', 'onnx', 'stablehlo', 'hf-mae', 'hf-pairs'],
                        'The format of OUT; or hub:OWNER/NAME.')
flags.FLAGS['to'].parser = _Formats(flags.FLAGS['to'].parser.enum_values)
_PUSH = flags.DEFINE_bool('push', False, 'With --to=hub:OWNER/NAME: upload OUT to huggingface.co, with the account '
                          'of `hf auth login`.')
_LICENSE = flags.DEFINE_string('license', None, 'With --to=bundle or hub: the licence of the weights, for the model '
                               'card, by its name on the hub, such as apache-2.0.')
_STEP = flags.DEFINE_integer('step', None, "The step of a run's checkpoint; default: the one that was scored on test.",
                             lower_bound=0)
_WITHOUT = flags.DEFINE_list('without', [], 'Patterns of names in SRC, such as head.*: matching tensors may be unused, '
                             'missing or of another shape. All others must fit.')

_SIZE = flags.DEFINE_list('image_size', None, 'Convert to a model for pictures of this size, 384 or HEIGHT,WIDTH, by '
                          'interpolating learned positions.')


def main(arguments: list[str]) -> int:
  if len(arguments) != 2:
    raise UserError('expected SRC and OUT: ' + commands.written(
        'convert', 'SRC OUT --to=bundle|hf|timm|npz|onnx|stablehlo|hf-mae|hf-pairs|hub:OWNER/NAME'))
  (source, out), to = arguments, _TO.value
  from vit_jax import host, records
  from vit_jax.interop import hub, matching, sources, writers

  name = hub.repository(to) if to.startswith(hub.TO) else None
  if _PUSH.value:
    if name is None:
      raise UserError(f'--push with --to={to}: only hub:OWNER/NAME can be uploaded')
    hub.client(f'--push --to={to}')
  if _LICENSE.value is not None and name is None and to != 'bundle':
    raise UserError(f'--license with --to={to}: only a bundle and hub:OWNER/NAME have a model card')
  host.hush_absent_tpu()
  pairs = to == 'stablehlo' and records.objective_of(source) == 'contrast'
  if to in ('hf-mae', 'hf-pairs') or pairs:
    for name, flag in (('without', _WITHOUT), ('image_size', _SIZE)):
      if flag.value:
        raise UserError(f'--{name}: is not for --to={to}, which writes all of a run as it is; leave it out')
    return {'hf-mae': _write_mae, 'hf-pairs': _write_pairs, 'stablehlo': _export_pairs}[to](source, out)
  weights = sources.read(source, tuple(_WITHOUT.value), _STEP.value)
  if weights.headless and to in ('onnx', 'stablehlo'):
    towers = records.objective_of(source) == 'contrast'
    raise UserError(f'{source}: has no classifier, which --to={to} writes; fine-tune it first'
                    + ('. Both of its towers are written with --to=stablehlo' if towers else ''))
  if _SIZE.value:
    weights = matching.resized(weights, _size(_SIZE.value))
  writers.write(weights, out, to, _LICENSE.value)
  height, width, channels = weights.image_shape
  classes = 'no head' if weights.headless else f'{weights.num_classes} classes'
  say(f'{out}: {weights.family}, {weights.size:,} parameters, {classes}, pictures of {height}x{width}x{channels}')
  if name is not None:
    say(f'uploaded    {hub.push(out, name)}' if _PUSH.value else
        f'not uploaded: read {out}/README.md, then `hf upload {name} {shlex.quote(out)} .`')
  return 0


def _write_mae(source: str, out: str) -> int:
  from vit_jax.inspection import own_model
  from vit_jax.interop import writers
  from vit_jax.models import vit
  from vit_jax.objectives import reconstruct
  _, config, model, weights = own_model.load(source, _STEP.value, 'reconstruct')
  if config.family != 'vit':
    raise UserError(f'{source}: family={config.family}; --to=hf-mae writes a vit')
  positions = reconstruct.positions(vit.grid(config.model, model.image_shape), config.loss.decoder_width)
  writers.write_mae(weights, config.loss, positions, out)
  say(f'{out}: vit_mae, {weights.size:,} parameters, with its decoder')
  return 0


def _write_pairs(source: str, out: str) -> int:
  from vit_jax.inspection import own_model
  from vit_jax.interop import pairs_writer, run_weights, writers
  _, config, _, weights = own_model.load(source, _STEP.value, 'contrast')
  file = run_weights.tokenizer_file(source, config.data.text.tokenizer)
  writers.write_pairs(weights, config.loss, own_model.tokenizer(source, config), config.data.text.clean, file, out)
  say(f'{out}: {pairs_writer.kind_of(config.loss)}, {weights.size:,} parameters, both towers, '
      + (f'tokenizer {config.data.text.tokenizer}' if file else
         f'without a tokenizer: {config.data.text.tokenizer} is in no file'))
  return 0


def _export_pairs(source: str, out: str) -> int:
  from vit_jax.inspection import pair_model
  from vit_jax.interop import writers
  path = writers.new_export(out)
  path.parent.mkdir(parents=True, exist_ok=True)
  say(f'{out}: {pair_model.export(source, path, _STEP.value):,} parameters, both towers and their tokenizer')
  return 0


def _size(texts: list[str]) -> tuple[int, int]:
  if len(texts) > 2 or not all(text.isdigit() and int(text) for text in texts):
    raise UserError(f'--image_size={",".join(texts)}: expected a size such as 384, or HEIGHT,WIDTH')
  return int(texts[0]), int(texts[-1])


if __name__ == '__main__':
  cli.run(main, positional=True)
