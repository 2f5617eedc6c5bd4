"""Hugging Face transformers: a folder with config.json, preprocessor_config.json and safetensors.

Tensor names are those of files on the hub, which every version of transformers reads and writes. Version 5 uses other
names in memory (`_IN_MEMORY`). Every key of the config is honoured, known to have no effect, or refused by name.
"""

import dataclasses
import fnmatch
import re
from typing import Any

from vit_jax.errors import UserError, nearest
from vit_jax.interop import derived, layout, matching, pairs, processors
from vit_jax.interop.entries import Entries
from vit_jax.interop.huggingface_layouts import DEFAULTS, LAYOUTS, SEVERAL, VALUES
from vit_jax.interop.huggingface_towers import TOWERS
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights
from vit_jax.layers import pos_embed
from vit_jax.models import vit

# (pattern of names in memory in transformers 5, replacement in files)
_IN_MEMORY = {
    'vit': ((r'(^|\.)layers\.(\d+)\.', r'\1encoder.layer.\2.'), (r'attention\.q_proj', 'attention.attention.query'),
            (r'attention\.k_proj', 'attention.attention.key'), (r'attention\.v_proj', 'attention.attention.value'),
            (r'o_proj', 'output.dense'), (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense')),
    'swin': ((r'attention\.q_proj', 'attention.self.query'), (r'attention\.k_proj', 'attention.self.key'),
             (r'attention\.v_proj', 'attention.self.value'), (r'o_proj', 'output.dense'),
             (r'attention\.relative_position_bias\.', 'attention.self.'),
             (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense'))}
_IN_MEMORY['swinv2'] = _IN_MEMORY['swin']
_IN_MEMORY |= {kind: _IN_MEMORY['vit'] for kind in ('deit', 'vit_mae')}
_RESIZES = ('dinov2', 'dinov2_with_registers')  # they interpolate their positions to the size of the pictures
_UNUSED = ('*.pooler.dense.*',)  # in files of backbones; the classifiers of transformers do not use it either
# Keys of a config of two towers: the towers' own, and what belongs to both and not to features of pictures.
_OF_TWO_TOWERS = ('vision_config', 'text_config', 'vision_config_dict', 'text_config_dict', 'projection_dim',
                  'logit_scale_init_value')
# Keys of any config without an effect on a classifier's outputs: names, training, text generation, outputs, backbones.
_FREE = (
    '_name_or_path', '_commit_hash', '_attn_implementation', '_attn_implementation_autoset', 'architectures', 'dtype',
    'torch_dtype', 'transformers_version', 'model_type', 'id2label', 'label2id', 'num_labels', 'finetuning_task',
    'return_dict', 'output_hidden_states', 'output_attentions', 'torchscript', 'use_bfloat16', 'tf_legacy_loss',
    'use_cache', 'gradient_checkpointing', 'chunk_size_feed_forward', 'is_encoder_decoder', 'is_decoder',
    'add_cross_attention', 'cross_attention_hidden_size', 'tie_encoder_decoder', 'tie_word_embeddings', 'max_length',
    'min_length', 'do_sample', 'early_stopping', 'num_beams', 'num_beam_groups', 'diversity_penalty', 'temperature',
    'top_k', 'top_p', 'typical_p', 'repetition_penalty', 'length_penalty', 'no_repeat_ngram_size',
    'encoder_no_repeat_ngram_size', 'bad_words_ids', 'num_return_sequences', 'output_scores',
    'return_dict_in_generate', 'forced_bos_token_id', 'forced_eos_token_id', 'remove_invalid_values',
    'exponential_decay_length_penalty', 'suppress_tokens', 'begin_suppress_tokens', 'tokenizer_class', 'prefix',
    'bos_token_id', 'pad_token_id', 'eos_token_id', 'sep_token_id', 'decoder_start_token_id', 'task_specific_params',
    'initializer_range', 'initializer_factor', 'hidden_dropout_prob', 'attention_probs_dropout_prob', 'dropout',
    'attention_dropout', 'drop_path_rate', 'encoder_stride', 'pooler_output_size', 'pooler_act', 'stage_names',
    'out_features', 'out_indices', 'image_size', 'num_channels', 'num_layers', 'num_stages', 'path_norm')


def read(tensors: Tensors, config: dict[str, Any], processor: dict[str, Any] | None,
         without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a model of transformers.

  Args:
    tensors: the tensors of its files.
    config: its config.json.
    processor: its preprocessor_config.json; None if there is none.
    without: see `layout.read`.

  Raises:
    UserError: an unsupported model, an entry of the config.json that is not supported or not known, or tensors that do
      not fit.
  """
  where, kind = tensors.source, str(config.get('model_type'))
  if kind in TOWERS:
    return _read_tower(tensors, kind, config, processor, without)
  if kind not in LAYOUTS:
    raise UserError(f'{where}: model_type={kind!r} is not supported{nearest(kind, [*LAYOUTS, *TOWERS])}')
  form, entries = LAYOUTS[kind], Entries(config, f'{where}: its config.json')
  fields = _fields(form, kind, entries)
  check_common(entries, several_labels=True)
  tensors = _in_file_names(tensors, kind)
  weights = Weights(where, form.family, fields, {}, {}, _preprocessing(entries, processor, where, kind))
  if kind in ('swin', 'swinv2'):
    _check_windows(weights, kind)
  if kind == 'swinv2':
    tensors = derived.with_key_biases(tensors, '.query.bias', '.key.bias')
  classes = layout.num_classes(tensors, form.classifier)
  weights = dataclasses.replace(weights, class_names=_class_names(config.get('id2label'), classes),
                                several_labels=config.get('problem_type') == SEVERAL)
  return layout.read(tensors, weights, classes, form.rules(weights.config), without + _UNUSED + form.unused)


def _read_tower(tensors, kind, config, processor, without):
  where, tower = tensors.source, TOWERS[kind]
  own = config
  if tower.vision is not None:
    check_common(Entries(config, f'{where}: its config.json'), *_OF_TWO_TOWERS)
    own = config.get(tower.vision) or {}
    if not isinstance(own, dict):
      raise UserError(f'{where}: {tower.vision} in its config.json: expected an object, got {own!r}')
    tensors = _vision_alone(tensors)
  entries = Entries(own, f'{where}: its config.json')
  tensors = derived.renamed(tensors, lambda name: name.removeprefix(tower.bare))
  tensors = derived.split(tensors, 'head.attention.in_proj_')
  tensors = pairs.only(tensors, lambda name: not (name.startswith('classifier.') and _matches(name, without)))
  if kind == 'dinov3_vit':
    tensors = derived.with_key_biases(tensors, '.q_proj.bias', '.k_proj.bias')
  try:
    found = tower.read(tensors, entries)
  except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
    raise UserError(f'{where}: has not the tensors of a {kind} ({error}); is it another architecture?') from error
  check_common(entries, several_labels=own is config)
  prepared = _preprocessing(entries, processor, where, kind)
  own_size = dataclasses.replace(prepared, size=_image_size(entries)) if kind in _RESIZES else prepared
  classes = layout.num_classes(tensors, 'classifier')
  weights = Weights(where, 'vit', found.fields, {}, {}, own_size, _class_names(config.get('id2label'), classes),
                    several_labels=config.get('problem_type') == SEVERAL)
  weights = layout.read(tensors, weights, classes, found.rules, without + found.unused)
  return _sized(weights, prepared, kind)


def _sized(weights, prepared, kind):
  """The tower for pictures of the size that they are prepared to; its positions are interpolated as by transformers."""
  if kind != 'dinov2_with_registers':
    return matching.resized(weights, prepared.size)
  grids = (vit.grid(weights.config, (*size, prepared.channels)) for size in (weights.preprocessing.size, prepared.size))
  table = pos_embed.resized(weights.params['pos_embed'], *grids, antialias=True)
  return dataclasses.replace(weights, params=weights.params | {'pos_embed': table}, preprocessing=prepared)


def _vision_alone(tensors):
  """The tensors of the vision tower of a model of two towers."""
  text = lambda name: name.startswith(('text_model.', 'text_projection.')) or name in ('logit_scale', 'logit_bias')
  return pairs.only(tensors, lambda name: not text(name))


def _matches(name, patterns):
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_common(entries: Entries, *free: str, several_labels: bool = False) -> None:
  """Raises UserError for keys that are not known, or that change the outputs of any model; `free` name others.

  `several_labels` says whether a classifier may be one of several labels a picture.
  """
  entries.only('problem_type', None, 'single_label_classification', *([SEVERAL] if several_labels else []))
  entries.only('pruned_heads', None, {})
  entries.free(*_FREE, *free)
  entries.close()


def _fields(form, kind, entries):
  """The fields of our Config from their config."""
  for key, value in form.must.items():
    entries.only(key, value)
  out = dict(form.fixed)
  for ours, (key, default) in form.fields.items():
    value = entries.get(key, DEFAULTS.get((kind, key), default))
    try:
      value = VALUES[ours][0](value) if ours in VALUES else value
    except (TypeError, ValueError, OverflowError):
      value = None
    if value is None and ours != 'layer_scale':
      raise entries.refused(key, f'{form.family} does not have this {ours}')
    out[ours] = value
  entries.free(*form.free)
  return out


def _check_windows(weights, kind):
  """Raises UserError for a picture size at which the windows of transformers differ from ours.

  If one side of a stage fits into a window, transformers uses square windows of that side and does not shift them. Here
  and in timm each side is treated separately. The logits therefore differ for elongated pictures with few patches.
  Swin V2 also chooses windows by a number of patches that is rounded down, where there is one more.
  """
  config = weights.config
  sides = [-(-size // max(config.patch_size, 1)) for size in weights.preprocessing.size]
  for stage in range(len(config.depths)):
    if min(sides) <= config.window_size and sides[0] != sides[1]:
      raise UserError(f'{weights.source}: pictures of {weights.preprocessing.size} have {sides[0]}x{sides[1]} patches '
                      f'in stage {stage}, where windows of {config.window_size} differ from those of transformers; '
                      'expected square pictures or more patches')
    counted = [size // (config.patch_size << stage) for size in weights.preprocessing.size]
    if kind == 'swinv2' and counted != sides and min(counted) <= config.window_size:
      raise UserError(f'{weights.source}: pictures of {weights.preprocessing.size} have {sides[0]}x{sides[1]} patches '
                      f'in stage {stage}, of which transformers counts {counted[0]}x{counted[1]} when it chooses the '
                      f'window; expected a multiple of {config.patch_size << stage}')
    sides = [-(-side // 2) for side in sides]


def _in_file_names(tensors, kind):
  """The tensors under the names that they have in a file of the model with its classifier."""
  prefix = f'{LAYOUTS[kind].prefix or kind}.'
  bare = not any(name.startswith(prefix) for name in tensors.shapes)

  def rename(name):
    for pattern, replacement in _IN_MEMORY.get(kind, ()):
      name = re.sub(pattern, replacement, name)
    return prefix + name if bare and 'classifier' not in name else name
  return derived.renamed(tensors, rename)


def _class_names(id2label, classes):
  """The class names; None if they are the defaults LABEL_0, LABEL_1, ... or not as many as the classes."""
  if not isinstance(id2label, dict):
    return None
  try:
    names = tuple(str(id2label[key]) for key in sorted(id2label, key=int))
  except ValueError:
    return None
  if len(names) != classes or all(name == f'LABEL_{i}' for i, name in enumerate(names)):
    return None
  return names


def _image_size(entries):
  size = entries.get('image_size', 224)
  return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def _preprocessing(entries, processor, where, kind):
  """The preparation of pictures. A model with learned positions must be given pictures of its own size."""
  size, channels = _image_size(entries), entries.get('num_channels', 3)
  found = processors.read(processor, kind, size, channels, where)
  positions = kind in ('vit', 'deit') or kind.startswith(('clip', 'siglip'))
  if positions and found.size != size:
    raise UserError(f'{where}: its preprocessor_config.json makes pictures of {found.size[0]}x{found.size[1]}, but '
                    f'image_size={entries.values.get("image_size")!r} in its config.json; expected the same')
  return found
