"""The report page of a run shows what its files hold, and nothing in them becomes markup."""

import json
import re
import shutil

import pytest

from vit_jax import records
from vit_jax.inspection import evaluation, run_page

EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028'


def _data(text):
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


@pytest.fixture(name='evaluated', scope='module')
def _evaluated(workdir):
  return evaluation.evaluate(workdir)


def test_the_page_holds_the_run(workdir, evaluated):
  path = run_page.write(evaluated)
  data, rows = _data(path.read_text()), records.read_rows(workdir / records.METRICS)
  assert str(path) == f'{workdir}/report.html'
  for split in ('train', 'val'):
    assert data['curves'][split]['loss'] == [row['loss'] for row in rows if row['split'] == split] != []
  assert data['summary'] == json.loads(json.dumps(evaluated.summary))
  assert sum(part['share'] for part in data['time']) == pytest.approx(1)
  assert len(data['right']) == 10 and 0 < len(data['mistakes']) <= 24
  confidence = [example['confidence'] for example in data['mistakes']]
  assert confidence == sorted(confidence, reverse=True)
  for example in data['right'] + data['mistakes'][:9]:
    assert all(example[name].startswith('data:image/') for name in ('picture', 'last', 'rollout'))
  assert len(data['distance']['values']) == 2 and len(data['distance']['values'][0]) == 2
  facts = dict(data['facts'])
  assert facts['sizes'] == '1,293 train, 144 val, 360 test' and facts['checkpoint'] == 'step 120'


def test_names_and_logs_cannot_inject(workdir, tmp_path):
  """With hostile class names, config, events and metrics."""
  hostile = tmp_path / 'run'
  shutil.copytree(workdir, hostile)
  record = records.read_run(hostile)
  record['git'] = record['data']['name'] = EVIL
  record['config']['data']['augment']['note'] = EVIL
  (hostile / records.EVENTS).open('a').write(json.dumps({'event': 'damaged', 'why': EVIL, 'step': EVIL}) + '\n')
  (hostile / records.METRICS).open('a').write(json.dumps({'split': EVIL, 'step': EVIL, 'loss': EVIL}) + '\n')
  found = evaluation.evaluate(hostile)
  records.write_run(hostile, record)
  names = tuple(f'{EVIL}{i}' for i in range(10))
  classes = [row | {'class': name, 'taken_for': row['taken_for'] and EVIL}
             for row, name in zip(found.summary['classes'], names)]
  summary = found.summary | {'data': EVIL, 'classes': classes}
  import dataclasses
  model = dataclasses.replace(found.model, class_names=names)
  text = run_page.render(dataclasses.replace(found, model=model, summary=summary))
  assert len(re.findall('</?script', text)) == 4 and '<img' not in text and '\u2028' not in text
  data = _data(text)
  assert data['mistakes'][0]['label'].startswith(EVIL) and EVIL in data['events'][-1]
  assert dict(data['facts'])['commit'] == EVIL[:10] + EVIL[40:]


def test_a_run_whose_logs_are_gone_still_has_its_scores(workdir, tmp_path):
  bare = tmp_path / 'run'
  shutil.copytree(workdir, bare)
  (bare / records.METRICS).unlink()
  (bare / records.EVENTS).write_text('not json\n')
  data = _data(run_page.write(evaluation.evaluate(bare, 'val')).read_text())
  assert data['summary']['examples'] == 144 and data['time'] == [] and data['curves']['val']['loss'] == []


def test_disturbances_of_a_run_are_listed():
  events = [{'event': 'start', 'step': 0}, {'event': 'resume', 'step': 3}, {'event': 'resume', 'step': 7},
            {'event': 'unreadable', 'step': 5, 'what': 'a.png: cut'}, {'event': 'finished'}]
  assert list(run_page._disturbed(events)) == ['restarts: 2, the last at step 7',
                                             'unreadable pictures: 1, the last at step 5: a.png: cut']
