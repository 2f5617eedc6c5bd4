"""A model card in Hugging Face's format: what a model is, how it was trained, what was measured and what was not.

It is the README.md of every bundle. Its metadata is YAML, with the results of the run as a `model-index`
(huggingface.co/docs/hub/model-cards). Everything in it comes from the run's record; what the record lacks is said.
"""

import json
import math
import os
import pathlib
import re
from typing import Any

import yaml
from etils import epath

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.interop.weights import Weights

FILE = 'README.md'
_SPLITS = ('test', 'val')
_CALIBRATION = 'expected_calibration_error'
_LICENSE = re.compile(r'[a-z0-9][a-z0-9.\-]*')  # as the hub writes them: apache-2.0, cc-by-4.0, other


def record_of(weights: Weights) -> dict[str, Any] | None:
  """The run.json of the run that the weights are of; None for those of other sources.

  It has `calibration`, {split: error}, of the splits that `--evaluate` has scored.
  """
  record = records.read_run(weights.source) if weights.step is not None else None
  if not record:
    return record
  calibration = {split: found['ece'] for split in _SPLITS if isinstance(
      (found := _evaluation(weights, record, split)).get('ece'), float)}
  return record | {'calibration': calibration}


def _evaluation(weights, record, split):
  """What `--evaluate` wrote of these weights and the run's own data; {} if it has not."""
  path = epath.Path(weights.source) / 'evaluation' / f'{split}.json'
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  own = isinstance(found, dict) and (found.get('step'), found.get('data')) == (weights.step, record['data'].get('name'))
  return found if own else {}


def write(weights: Weights, record: dict[str, Any] | None = None, license: str | None = None, name: str | None = None,
          transformers: bool = False) -> str:
  """The text of a card.

  Args:
    weights: the model.
    record: the fields of its run.json, perhaps with `calibration`; None: it was not trained here, or is not known how.
      With `results.probe` its head alone was trained, as a linear probe.
    license: the licence of the weights by its name on the hub, such as apache-2.0; None: none was given.
    name: OWNER/NAME on the hub; None: the name of the run's folder.
    transformers: whether files of transformers are beside it.

  Raises:
    UserError: a licence that is no such name.
  """
  check_license(license)
  title = (name or pathlib.PurePath(weights.source).name or weights.family).rpartition('/')[2]
  metadata = {**({'license': license} if license else {}),
              'library_name': 'transformers' if transformers else 'vit_jax',
              **({} if weights.headless else {'pipeline_tag': 'image-classification'}),
              'tags': ['vision', 'jax', 'vit_jax', weights.family]}
  results = _results(weights, record)
  if record:
    metadata['datasets'] = [_dataset(record)]
  if results:
    metadata['metrics'] = list(dict.fromkeys(metric for _, metric, _, _ in results))
    metadata['model-index'] = [{'name': title, 'results': _index(record, results)}]
  sections = [f'# {title}', _what(weights, record), '## Use', _use(name, transformers, weights),
              '## Training', _training(weights, record), '## Results', _measured(weights, record, results),
              '## Limits', _limits(weights, record, license)]
  front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
  return f'---\n{front}---\n\n' + '\n\n'.join(sections) + '\n'


def check_license(license: str | None) -> None:
  """Raises UserError for what is not the name of a licence on the hub."""
  if license is not None and not _LICENSE.fullmatch(license):
    raise UserError(f'license={license!r}: expected a name as on the hub, such as apache-2.0, cc-by-4.0 or other')


def _results(weights, record):
  """(split, metric, value, number of examples or None) of what the run measured with these parameters."""
  found = (record or {}).get('results') or {}
  if weights.step is not None and found.get('step') != weights.step:
    return []  # the results are another checkpoint's
  sizes = {'test': found.get('test_examples'), 'val': (record or {}).get('data', {}).get('split', {}).get('val')}
  calibration = (record or {}).get('calibration') or {}
  if after := ((found.get('calibration') or {}).get('test') or {}).get('after'):
    calibration = {'test': after['ece']} | calibration
  measured = {split: dict(found.get(split) or {}) | ({_CALIBRATION: calibration[split]} if split in calibration else {})
              for split in _SPLITS}
  return [(split, metric, value, sizes[split]) for split in _SPLITS for metric, value in measured[split].items()
          if isinstance(value, (int, float)) and math.isfinite(value)]


def _index(record, results):
  """The `results` of a model-index: one entry for each split."""
  task, dataset = _task(record), _dataset(record)
  return [{'task': {'type': task}, 'dataset': {'type': dataset, 'name': dataset, 'split': split},
           'metrics': [{'type': metric, 'name': metric, 'value': value}
                       for other, metric, value, _ in results if other == split]}
          for split in dict.fromkeys(split for split, *_ in results)]


def _task(record):
  objective = record['config'].get('objective', 'classify')
  return {'classify': 'image-classification', 'caption': 'image-to-text', 'contrast': 'zero-shot-image-classification'
          }.get(objective, 'image-feature-extraction')


def _dataset(record):
  """The name of the data as the hub takes it: no folder of the machine where it was trained."""
  return re.sub(r'[^\w.\-]+', '_', str(record['data'].get('name', 'unknown')).rstrip('/').rpartition('/')[2])


def _what(weights, record):
  height, width, channels = weights.image_shape
  text = (f'A {weights.family} model for pictures of {height}x{width}x{channels} with {weights.size:,} parameters, '
          'in JAX.')
  if weights.headless:
    return f'{text} It is a backbone without a classifier: it gives features, and is to be fine-tuned.'
  names = [' '.join(name.split()) for name in weights.names()]
  some = ', '.join(names[:10]) + (f' ... ({len(names):,} in all)' if len(names) > 10 else '')
  if weights.several_labels:
    return f'{text} A picture can have several of {len(names):,} labels, each with its own probability: {some}.'
  return f'{text} It tells {len(names):,} classes apart: {some}.'


def _use(name, transformers, weights):
  place = name or 'FOLDER'
  parts = [f'With vit_jax{"" if name else " (FOLDER is the folder of this file)"}:\n\n```bash\n'
           f'vit-jax predict {f"hf:{name}" if name else place} PICTURES\n```']
  if transformers:
    head = '' if weights.headless else 'ForImageClassification'
    parts.append('With transformers:\n\n```python\nimport transformers\n\n'
                 f"processor = transformers.AutoImageProcessor.from_pretrained('{place}')\n"
                 f"model = transformers.AutoModel{head}.from_pretrained('{place}')\n```"
                 + ('' if weights.temperature == 1 else f'\n\nDivide its logits by {weights.temperature:.4g}.'))
  return '\n\n'.join(parts)


def _training(weights, record):
  if record is None:
    told = _temperature(weights, {})
    return ('How this model was trained is not recorded here: its weights were read from another format.'
            + (f' Temperature {told}.' if told else ''))
  config, step, devices = record['config'], weights.step, record.get('devices') or {}
  size, number = config['data']['batch_size'], lambda name: f'{record[name]:,}' if name in record else 'not recorded'
  rate, codes = config['optimizer'].get('learning_rate'), [part['code'] for part in record.get('codes') or ()]
  if probe := (record.get('results') or {}).get('probe'):
    how = {'head': f'a linear probe on the features of the frozen model, inverse penalty {probe["strength"]:.3g}'}
    config = {key: value for key, value in config.items() if key in ('family', 'model', 'data', 'pretrained')}
  else:
    how = {'steps': f'{step:,} of {size:,} pictures',
           'compute': f'{step * size * record.get("flops_per_example_train", math.nan):.3g} FLOPs',
           'optimizer': f'{config["optimizer"].get("name")}, learning rate {rate}', 'seed': config.get('seed', 0)}
  rows = {
      'objective': config.get('objective', 'classify'),
      'data': f'{_dataset(record)}, {record["data"].get("unique_examples", 0):,} training pictures', **how,
      'forward pass': f'{record.get("flops_per_example_forward", math.nan) / 1e9:.3g} GFLOPs per picture',
      'parameters': f'{number("params")} ({number("params_non_embedding")} without embeddings and head)',
      'run': record.get('config_hash'),
      'code': ', '.join(dict.fromkeys(codes or [record.get('code', 'not recorded')])),
      'commit': record.get('git') or 'not recorded',
      'devices': f'{devices.get("count")} x {devices.get("kind")}',
      'starts from': (record.get('pretrained') or {}).get('source'),
      'teacher': (record.get('teacher') or {}).get('config_hash'),
      'temperature': _temperature(weights, record)}
  table = '\n'.join(f'| {key} | {_public(value)} |' for key, value in rows.items() if value is not None)
  shown = {key: value for key, value in config.items() if key != 'system'}
  return (f'| | |\n|---|---|\n{table}\n\nFLOPs are counted from the shapes (a multiply-add is 2). The whole config:\n\n'
          f'```json\n{json.dumps(_public(shown), indent=1)}\n```')


def _temperature(weights, record):
  """What the temperature is and what it does, in words; None without one."""
  if weights.temperature == 1:
    return None
  found = (record.get('results') or {}).get('calibration') or {}
  words = [f'{weights.temperature:.4g}: logits are divided by it before they become probabilities']
  if 'examples' in found:
    words.append(f'fitted to {found["examples"]:,} pictures of val (Guo et al. 2017)')
  if 'test' in found:
    words.append('calibration error of test {before:.2%} without it, {after:.2%} with it'.format(
        **{when: found['test'][when]['ece'] for when in ('before', 'after')}))
  return '; '.join(words)


def _public(value):
  """A value without the folders of the machine where the model was trained."""
  if isinstance(value, dict):
    return {key: _public(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [_public(inner) for inner in value]
  if isinstance(value, str):
    kind, colon, rest = value.partition(':')
    place = rest if colon and kind.isalnum() and not rest.startswith('//') else value
    if os.path.isabs(os.path.expanduser(place)) or '://' in place:
      return value.removesuffix(place) + place.rstrip('/').rpartition('/')[2]
  return value


def _measured(weights, record, results):
  if not results:
    return 'Nothing was measured with exactly these parameters.'
  of = ('These are of the whole model that was trained, of which this is the backbone.\n\n' if weights.headless else '')
  rows = '\n'.join(f'| {_dataset(record)} | {split} | {size if size is not None else ""} | {metric} | {value:.4g} |'
                   for split, metric, value, size in results)
  return f'{of}| data | split | pictures | metric | value |\n|---|---|---|---|---|\n{rows}'


def _limits(weights, record, license):
  lines = []
  test = next((size for split, _, _, size in _results(weights, record) if split == 'test' and size), None)
  if test:
    lines.append(f'The test split has {test:,} pictures. A share of them is uncertain by up to '
                 f'{100 / math.sqrt(test):.2g} points (95%, from their number alone).')
  if record:
    if not (record.get('results') or {}).get('probe'):
      lines.append(f'One run with seed {record["config"].get("seed", 0)}. How much another seed differs is not known.')
    calibrated = any(metric == _CALIBRATION for _, metric, _, _ in _results(weights, record))
    lines.append(f'Measured on {_dataset(record)} alone. Not measured here: other data, damaged pictures, pictures of '
                 f'something else, adversarial ones, {"" if calibrated else "calibration, "}and differences between '
                 'groups of people.')
    if (record.get('pretrained') or {}).get('source'):
      lines.append('It starts from other weights. Their licence and the limits of their data apply too.')
  else:
    lines.append('Nothing about this model was measured here.')
  lines.append(f'Licence of the weights: {license}.' if license else
               'No licence was given for these weights. Whoever publishes them adds `license:` to the metadata above.')
  return '\n'.join(f'- {line}' for line in lines)
