"""What a law.json tells another program: its value at a size and length, and the length that is optimal for a size."""

import json
from typing import Any

import numpy as np
from etils import epath

from vit_jax.errors import UserError
from vit_jax.scaling import estimate, frontier, written

Law = dict[str, Any]


def read(path: str) -> Law:
  """The law of a law.json.

  Raises:
    UserError: there is no such file, or it is no law of one group.
  """
  file = epath.Path(path)
  if not file.is_file():
    raise UserError(f'{path}: no such file; expected the law.json that python -m vit_jax.law --out=OUT writes')
  try:
    law = json.loads(file.read_text())
  except ValueError as error:
    raise UserError(f'{path}: expected a law.json: {error}') from error
  if not isinstance(law, dict) or not isinstance(law.get('coefficients'), dict):
    raise UserError(f'{path}: expected the law.json of one law, with its form and coefficients; that of several groups '
                    'has a law for each')
  return law


def optimal_examples(law: Law, params: float) -> float:
  """D*, the examples at which a model of `params` is compute-optimal.

  It follows the optima of the law's budgets, (N*, D*), in logarithms, and beyond them the slope of the nearest two.

  Raises:
    UserError: the law has no compute-optimal sizes at two budgets.
  """
  rows = (law.get('compute_optimal') or {}).get('rows') or []
  n, d = (np.log([row[name] for row in rows]) for name in ('params', 'examples'))
  if len(n) < 2 or not np.all(np.diff(n) > 0):
    raise UserError(f'the law {law.get("form")} has {len(n)} compute-optimal sizes that grow with the budget; expected '
                    'two or more, as of --form=chinchilla with two --budget')
  i = int(np.clip(np.searchsorted(n, np.log(params)) - 1, 0, len(n) - 2))
  slope = (d[i + 1] - d[i]) / (n[i + 1] - n[i])
  return float(np.exp(d[i] + slope * (np.log(params) - n[i])))


def value(law: Law, params: float, examples: float) -> float:
  """The law of N and D at a point, such as a learning rate of --form='c * N^-a * D^b' --metric=learning_rate.

  Raises:
    UserError: the law is not in params and examples.
  """
  names, values = tuple(law['coefficients']), np.array([list(law['coefficients'].values())])
  if not written.is_written(law['form']):
    cls, terms = estimate.form_class(law['form']), frontier.chinchilla_coefficients(names, values)
    if not cls.in_chinchilla_terms or terms is None:
      raise UserError(f'the law {cls.name} is in {", ".join(cls.inputs)}; expected one in params and examples')
    E, A, alpha, B, beta = map(float, terms[:, 0])
    return E + A * params ** -alpha + B * examples ** -beta
  at = {'params': np.array([params]), 'examples': np.array([examples])}
  form = written.form(law['form'], '', tuple(at))(at, np.ones(1))
  if set(form.names) != set(names):
    raise UserError(f'the law {law["form"]} has the coefficients {", ".join(names)}; expected those of a form in N and '
                    'D')
  return float(form.model(form.theta_of(law['coefficients']), at)[0][0, 0])
