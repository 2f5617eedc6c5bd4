"""Where the rows of metrics.jsonl go too: TensorBoard's files, and a service of `system.track` by its own client.

A row arrives as SPLIT/COLUMN at its step, as in metrics.jsonl; the config and what tells the run from others are the
run's config (W&B) or params (MLflow). A run that is resumed goes on with the same tracked run, and brings it up to its
log. Where a rewind or a damaged checkpoint changes rows that were sent, a service keeps the first: metrics.jsonl is
what counts. No step waits for a service, and none ends a run: one that fails is left out, which is said once.
"""

import hashlib
import importlib.util
import json
import math
import os
import queue
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

from etils import epath

from vit_jax import records, schema
from vit_jax.errors import UserError

Name = Literal['', 'wandb', 'mlflow', 'tensorboard']
PROJECT = 'vit_jax'  # where WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names no other
BEGUN, FAILED = 'tracked', 'untracked'  # events
_LAST_S = {True: 60, False: 5}  # how long the last rows of a run have to arrive, if it has finished, or is stopped
_ONE_AT_A_TIME = threading.Lock()  # of runs that are trained together


def check(name: Name) -> None:
  """Raises UserError if the client of a service is not installed."""
  if name in _SERVICES:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder of that name, such as W&B's own, is found too
      raise UserError(f"system.track={name!r}: {name} is not installed: pip install {name}; or leave it '', which "
                      "writes TensorBoard's files")


def columns(row: dict[str, Any]) -> dict[str, float]:
  """{SPLIT/COLUMN: value} of a row of metrics.jsonl: its numbers, without its step."""
  return {f'{row["split"]}/{name}': row[name] for name in _numbers(row) if math.isfinite(row[name])}


def _numbers(row):
  return [name for name, value in row.items() if name != 'step' and isinstance(value, (int, float))]


def facts(record: dict[str, Any]) -> dict[str, Any]:
  """What a run is, from the fields of its run.json: the keys of its config as laws name them, identity, size, data."""
  own = {name: value for name, value in record.items() if isinstance(value, (str, int, float))}
  data, devices = record['data'], record['devices']
  return {**schema.flat(record['config']), **own, 'data.name': data['name'],
          'data.unique_examples': data['unique_examples'], 'devices.kind': devices['kind'],
          'devices.count': devices['count']}


class Tracking:
  """What is sent of one run, by the process that writes its log."""

  def __init__(self, folder: epath.Path, name: Name, shown: Collection[str], events: records.Lines,
               note: Callable[[str], None]):
    """Nothing is opened before `follow`.

    Args:
      folder: the run folder.
      name: `system.track`.
      shown: the columns in TensorBoard; with name='tensorboard' it has all.
      events: the run's, for the id of the tracked run and for a failure.
      note: prints a line.
    """
    self._folder, self._name, self._shown, self._events, self._note = folder, name, shown, events, note
    self._tensorboard: Any = None
    self._sender: _Sender | None = None

  def follow(self, record: dict[str, Any], rows: Sequence[dict[str, Any]], step: int) -> None:
    """Begins, or begins again after a rewind: the log has these rows, up to `step`."""
    from tensorboardX import SummaryWriter  # takes half a second, so imported late
    if self._tensorboard:
      self._tensorboard.close()
    self._tensorboard = SummaryWriter(os.fspath(self._folder / 'tensorboard'), purge_step=step + 1)
    if self._name == 'tensorboard':
      self._tensorboard.add_text('run', '    ' + json.dumps(facts(record), indent=2).replace('\n', '\n    '), step)
    elif self._name and self._sender is None:
      service = _SERVICES[self._name]()
      self._sender = _Sender(service)
      self._sender.call(service.begin, self._id(), self._folder, facts(record), list(rows))

  def _id(self):
    """The id of the tracked run: a new one where the events have none."""
    begun = [event for event in records.read_events(self._folder / records.EVENTS)
             if event['event'] == BEGUN and event.get('service') == self._name]
    if begun and isinstance(begun[-1].get('id'), str):
      return begun[-1]['id']
    name = secrets.token_hex(4)
    self._events.append({'event': BEGUN, 'service': self._name, 'id': name})
    return name

  def log(self, row: dict[str, Any]) -> None:
    """Sends a row."""
    for name in _numbers(row) if self._name == 'tensorboard' else self._shown:
      if name in row:
        self._tensorboard.add_scalar(f'{row["split"]}/{name}', row[name], row['step'])
    if self._sender:
      self._sender.call(self._sender.service.log, dict(row))
      self._say()

  def _say(self):
    """Says where the service has the run, and that it failed."""
    for event, text in self._sender.said():
      if event == FAILED:
        self._events.append({'event': FAILED, 'service': self._name, 'why': text})
      self._note(f'{self._name}: {text}')

  def flush(self) -> None:
    """Makes TensorBoard's files durable."""
    self._tensorboard.flush()

  def close(self, finished: bool) -> None:
    """Sends what is left, and how the run ended."""
    if self._tensorboard:
      self._tensorboard.close()
    if self._sender:
      self._sender.call(self._sender.service.finish, finished)
      self._sender.close(_LAST_S[finished])
      self._say()


class _Service(Protocol):
  """A tracked run. Each call may block or raise; they come one after the other from one thread."""

  def begin(self, id: str, folder: epath.Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Opens the tracked run of that id, new or old, sends the rows that it lacks, and returns where to look at it."""

  def log(self, row: dict[str, Any]) -> None:
    """Sends a row, unless the tracked run has it."""

  def finish(self, finished: bool) -> None:
    """Ends the tracked run, which may be resumed if it has not finished."""


class _Wandb:
  """Weights & Biases: online where one is logged in; WANDB_MODE=offline writes to RUN/wandb, for `wandb sync`."""

  def begin(self, id, folder, facts, rows):
    import wandb
    local = '://' not in os.fspath(folder) and 'WANDB_DIR' not in os.environ
    if local:
      folder.mkdir(parents=True, exist_ok=True)
    with _ONE_AT_A_TIME:
      self._run = wandb.init(
          id=id, resume='allow', name=folder.name, group=folder.parent.name, config=facts, allow_val_change=True,
          project=os.environ.get('WANDB_PROJECT', PROJECT), dir=os.fspath(folder) if local else None,
          reinit='create_new', settings=wandb.Settings(silent=True, console='off'))
    self._next = self._run.starting_step  # W&B refuses rows of earlier steps
    for row in rows:
      self.log(row)
    return f'{os.path.dirname(self._run.dir)} (to send it: wandb sync FOLDER)' if self._run.offline else self._run.url

  def log(self, row):
    if row['step'] >= self._next:
      self._next = row['step']
      self._run.log(columns(row), step=row['step'])

  def finish(self, finished):
    self._run.finish(exit_code=0 if finished else 1)


class _Mlflow:
  """MLflow: MLFLOW_TRACKING_URI says where, and without it mlflow's default. Names have _ for what it refuses (@)."""

  def begin(self, id, folder, facts, rows):
    import mlflow
    name = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
    with _ONE_AT_A_TIME:
      place = self._open(name)
      there = self._client.search_runs([place], f"tags.vit_jax_id = '{id}'")
    run = there[0] if there else self._client.create_run(place, run_name=folder.name, tags={
        'vit_jax_id': id, 'sweep': folder.parent.name, 'folder': os.fspath(folder)})
    self._id = run.info.run_id
    if there:
      self._client.update_run(self._id, status='RUNNING')
    else:
      self._log_params(facts)
    # Every row has its examples, so what was sent of them says which rows were.
    self._sent = {(split, metric.step) for split in ('train', 'val', 'test')
                  for metric in (self._client.get_metric_history(self._id, f'{split}/examples') if there else ())}
    for row in rows:
      self.log(row)
    return f'run {self._id} of experiment {name} in {mlflow.get_tracking_uri()}'

  def _open(self, name):
    """The number of an experiment, which is made if there is none.

    MLflow's client makes a new SQLite file, and two that do so at once damage it: one process after the other opens it.
    """
    import fcntl  # not on Windows

    import mlflow
    from mlflow.exceptions import MlflowException
    place = os.path.abspath(mlflow.get_tracking_uri().removeprefix('sqlite:///'))
    digest = hashlib.sha256(place.encode()).hexdigest()[:16]
    with open(os.path.join(tempfile.gettempdir(), f'vit_jax-mlflow-{digest}.lock'), 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      self._client = mlflow.MlflowClient()
      try:
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)
      except MlflowException:  # another machine was first, at a server
        return self._client.get_experiment_by_name(name).experiment_id

  def _log_params(self, facts):
    from mlflow.entities import Param
    params = [Param(_allowed(name), str(value)[:6000]) for name, value in facts.items()]
    for first in range(0, len(params), 100):  # as many as it takes at once
      self._client.log_batch(self._id, params=params[first:first + 100])

  def log(self, row):
    from mlflow.entities import Metric
    if (key := (row['split'], row['step'])) not in self._sent:
      self._sent.add(key)
      now = int(1000 * time.time())
      self._client.log_batch(self._id, [Metric(_allowed(name), value, now, row['step'])
                                        for name, value in columns(row).items()])

  def finish(self, finished):
    self._client.set_terminated(self._id, 'FINISHED' if finished else 'KILLED')


def _allowed(name):
  return re.sub(r'[^\w\-. :/]', '_', name)


_SERVICES: dict[str, type[_Service]] = {'wandb': _Wandb, 'mlflow': _Mlflow}


class _Sender:
  """Calls of a service, one after the other in a thread: no step waits for a server. After one fails there are none."""

  def __init__(self, service: _Service):
    self.service = service
    self._calls: queue.SimpleQueue = queue.SimpleQueue()
    self._words: queue.SimpleQueue = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._work, name='tracking', daemon=True)
    self._thread.start()

  def call(self, function: Callable, *arguments: Any) -> None:
    self._calls.put((function, arguments))

  def said(self) -> list[tuple[str, str]]:
    """(event, text) of what there is to say since the last call."""
    return [self._words.get() for _ in range(self._words.qsize())]

  def close(self, seconds: float) -> None:
    """Waits for the calls, at most so long."""
    self._calls.put(None)
    self._thread.join(seconds)
    if self._thread.is_alive():
      self._words.put((FAILED, f'the last {max(1, self._calls.qsize() - 2)} rows were not sent within {seconds:g} s'))

  def _work(self):
    while call := self._calls.get():
      function, arguments = call
      try:
        if where := function(*arguments):
          self._words.put((BEGUN, where))
      except BaseException as error:  # some clients raise SystemExit or KeyboardInterrupt where a person is asked
        self._words.put((FAILED, f'{type(error).__name__}: {error}. The run goes on without it'))
        return
