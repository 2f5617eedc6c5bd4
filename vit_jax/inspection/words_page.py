"""The page of a run that is about texts and not about classes: of captions, or of pairs without classes."""

import dataclasses
import os

from etils import epath

from vit_jax import durable, objectives, records
from vit_jax.data import pipeline
from vit_jax.drawing import page
from vit_jax.errors import UserError
from vit_jax.inspection import captioner, evaluation, own_model, pair_model, run_page, text_samples
from vit_jax.interop import run_weights

SCORES = {'contrast': 'image_to_text@1', 'caption': 'accuracy'}  # drawn beside the loss


def is_for(place: str | os.PathLike) -> bool:
  """Whether the page of a run is this one."""
  objective = records.objective_of(place)
  if objective not in SCORES:
    return False
  data = (records.read_run(place) or {}).get('data') or {}
  return objective == 'caption' or len(data.get('classes') or ()) < 2 or bool(data.get('several_labels'))


def write(place: str | os.PathLike, split: str) -> epath.Path:
  """Writes report.html into the run folder and returns its path. Raises UserError as `render` does."""
  path = epath.Path(place) / 'report.html'
  durable.write(path, render(place, split))
  return path


def render(place: str | os.PathLike, split: str) -> str:
  """The page as HTML.

  Raises:
    UserError: it is no run of objective=contrast or caption, has no checkpoint, the split has not been scored, or its
      data are not there any more as they were.
  """
  objective = records.objective_of(place)
  model = (pair_model.load if objective == 'contrast' else captioner.load)(place)
  own = own_model.load(place, None, objective)
  data = pipeline.open_data(_with_own_tokenizer(place, own.config.data), to_train=False)
  scored = run_page.last_row(os.fspath(place), split)
  if not scored:
    raise UserError(f'{os.fspath(place)}: metrics.jsonl has no scores of split {split!r}; give another --split')
  known = objectives.of(own.config)
  evaluation.refuse_other_data(os.fspath(place), own.record, data.reading(known.inputs(data.image_shape)), split,
                               'The page is of its own data: bring them back as they were')
  samples = {'retrieval': text_samples.retrieval(model, data, split, scored)} if objective == 'contrast' else {
      'captions': text_samples.captions(model, data, split)}
  shown = {name: metric for name, metric in {**known.metrics, **known.evaluated}.items()
           if name in scored and (metric.shown or name == 'exact')}
  summary = {'split': split, 'data': data.name, 'step': own.weights.step, 'unreadable': []}
  number = f'{data.size(split):,} {split} pictures'
  headline = (f'the nearest text is right for {scored["image_to_text@1"]:.2%} of {number}' if objective == 'contrast'
              else f'{scored["exact"]:.2%} of the texts of {number} would be written to the letter')
  common = run_page.common(os.fspath(place), own.record, summary, own.weights.preprocessing, own.config,
                           SCORES[objective])
  return page.render(f'{common["name"]}: {headline}', [headline], common | {
      'headline': headline, 'texts': samples,
      'numbers': [[name, scored[name], metric.share] for name, metric in shown.items()]}, *run_page.PARTS,
      run_page.HERE / 'run_words.js')


def _with_own_tokenizer(place, config):
  """The data options of a run, with its copy of a tokenizer.json that may be gone from where it was."""
  text = config.text
  if not text.tokenizer.endswith('.json'):
    return config
  return dataclasses.replace(config, text=dataclasses.replace(
      text, tokenizer=run_weights.tokenizer_file(place, text.tokenizer)))
