"""Forms written by users: the same fit as a built-in form, exact derivatives, starts and bounds, and errors."""

import command_line
import numpy as np
import pytest

import vit_jax
from vit_jax.errors import UserError
from vit_jax.scaling import analysis, estimate, expression, start, written
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import load

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 5)))
W, L = (a.ravel() for a in np.meshgrid([64.0, 128, 256, 512, 1024], [2.0, 3, 4, 6, 8, 12]))
X = np.geomspace(1e2, 1e7, 30)
S = np.linspace(1, 4, 30)
COLUMNS = {'params': N, 'examples': D, 'width': W, 'depth': L, 'x': X, 'val/loss': S}
LSQ = Objective('log_lsq')
CHINCHILLA = 'E + A/N^alpha + B/D^beta'


def columns(*names):
  return {name: COLUMNS[name] for name in names}


def test_chinchilla_as_text_is_the_built_in_form():
  y = (1.7 + 406 * N ** -0.34 + 410 * D ** -0.28) * np.exp(0.02 * np.random.default_rng(0).standard_normal(len(N)))
  built_in = estimate.fit('chinchilla', columns('params', 'examples'), y)
  fit = estimate.fit(written.form(CHINCHILLA, '', ['params', 'examples']), columns('params', 'examples'), y)
  assert list(fit.coefficients) == list(built_in.coefficients)
  assert fit.value == pytest.approx(built_in.value, rel=1e-9) and fit.irreducible == fit.coefficients['E']
  for name, value in built_in.coefficients.items():
    assert fit.coefficients[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize('text, starts, names, true', [
    ('c*N^-a*D^b', 'b=-1..1', ('params', 'examples'), {'c': 0.3, 'a': 0.3, 'b': -0.1}),  # of the best learning rate
    ('c*D^a', '', ('examples',), {'c': 0.02, 'a': 0.4}),  # of the best batch size
    ('E + A/width^a + B/depth^b', '', ('width', 'depth'), {'E': 0.5, 'A': 20, 'a': 0.8, 'B': 0.7, 'b': 1.1}),
    ('a + b*x^-c0*(1 + (x/d1)^(1/f1))^(-c1*f1)', '', ('x',),
     {'a': 0.1, 'b': 3, 'c0': 0.1, 'd1': 1e5, 'f1': 0.3, 'c1': 0.4}),  # Caballero et al. 2022, one break
    ('hi - A*x^-b', '', ('x',), {'hi': 0.9, 'A': 2, 'b': 0.3}),
    ('lo + (hi-lo)*sigmoid(k*(val/loss-m))', '', ('val/loss',), {'lo': 0.1, 'hi': 0.7, 'k': 3, 'm': 2.3}),
    ('lo + A*exp(-k*val/loss)', '', ('val/loss',), {'lo': 0.1, 'A': 3, 'k': 1.5}),
    ('max(E, A*x^-a)', '', ('x',), {'E': 0.2, 'A': 9, 'a': 0.4}),
    ('1/(1 + A*N^a*D^b)', '', ('params', 'examples'), {'A': 1e-9, 'a': 0.5, 'b': 0.6}),  # the odds are a power law
    ('1 - A*N^a/(1 + A*N^a)', '', ('params',), {'A': 1e-5, 'a': 0.5}),
    ('E + 2/(1 + D^b/(q*N^a))', '', ('params', 'examples'), {'E': 0.1, 'q': 4e4, 'a': 0.2, 'b': 0.7}),
    ('10^(a - b*log(x)) + E', '', ('x',), {'a': 1.5, 'b': 0.2, 'E': 0.3}),
    ('E + A/(N - 5e5)^a', '', ('params',), {'E': 1.2, 'A': 60, 'a': 0.3}),  # has no values around N = 1
    ('E + A/(log(N) - 10)^a + B/D^b', '', ('params', 'examples'), {'E': 1, 'A': 2, 'a': 1.5, 'B': 400, 'b': 0.3}),
    ('E + A/(1 + N/1e7)^a', '', ('params',), {'E': 0.5, 'A': 2, 'a': 0.4}),
    ('E + A*(1 - N/1e12)^a', 'a=1e2..1e4', ('params',), {'E': 0.5, 'A': 2, 'a': 1500})])  # is A + E around N = 1
def test_forms_are_recovered_without_noise(text, starts, names, true):
  form = written.form(text, starts, names)
  y = form_value(text, names, true)
  fit = estimate.fit(form, columns(*names), y, LSQ)
  for name, value in true.items():
    assert fit.coefficients[name] == pytest.approx(value, rel=1e-4), name
  assert not {'A', 'B', 'c', 'q'} & set(fit.form.exponents)  # only what is in these must be identified


@pytest.mark.parametrize('text, points', [('E + A*sqrt(N - 2e6)', 5), ('E + A/(N - 1e6)^a', 5),
                                          ('log(N/1e7) + E*0.1', 10)])
def test_points_at_which_a_form_has_no_value_are_named(text, points):
  with pytest.raises(UserError, match=f'has no value above 0 at {points} of 30 points, such as params=1e'):
    estimate.fit(written.form(text, '', ['params']), columns('params'), 1 + N ** -0.2)


def form_value(text, names, coefficients):
  """The value of a form, evaluated as a derived column is."""
  values = dict(columns(*names)) | {short: COLUMNS[name] for short, name in written.ALIASES.items() if name in names}
  tree = expression.parse(text, 'x', names)
  return expression.evaluate(tree, lambda name: values.get(name, coefficients.get(name)), 'x', names)


@pytest.mark.parametrize('text, names', [
    (CHINCHILLA, ('params', 'examples')), ('a + b*x^-c0*(1 + (x/d1)^(1/f1))^(-c1*f1)', ('x',)),
    ('lo + (hi-lo)*sigmoid(k*(val/loss-m))', ('val/loss',)), ('E + sqrt(A/x + d) - min(g, log(x + h))*2/x', ('x',)),
    ('hi - A*(x + d)^-b', ('x',)), ('E + A*2^(-k*val/loss)', ('val/loss',)),
    ('1 - A*N^a*D^b/(1 + A*N^a*D^b)', ('params', 'examples')), ('E + exp(-A*N^a) + sqrt(A)/N', ('params',)),
    ('E + F*exp(-N^a/(q*(2*D)^(2*b)))', ('params', 'examples'))])
def test_derivatives_and_coefficients_are_exact(text, names):
  given = columns(*names)
  y = np.linspace(3, 0.5, len(given[names[0]]))
  form = written.form(text, '', names)(given, y)
  theta = form.starts(given, y, np.ones(len(y)))
  theta = theta[np.random.default_rng(0).choice(len(theta), 20)]
  margin = 0.01 * np.minimum(1, form.upper - form.lower)
  theta = np.clip(theta, form.lower + margin, form.upper - margin)
  value, jacobian = form.model(theta, given)
  for i in range(theta.shape[1]):
    step = 1e-6 * (np.arange(theta.shape[1]) == i)
    difference = (form.model(theta + step, given)[0] - form.model(theta - step, given)[0]) / 2e-6
    scale = np.abs(jacobian[:, i]).max(1, keepdims=True)
    assert (np.abs(difference - jacobian[:, i]) <= 1e-5 * scale + 1e-8 * np.abs(value)).all(), form.names[i]
  np.testing.assert_allclose(form.theta_of(dict(zip(form.names, form.natural(theta)[0])))[0], theta[0], atol=1e-9)
  for row, at in zip(form.natural(theta), value):
    np.testing.assert_allclose(at, form_value(text, names, dict(zip(form.names, row))), rtol=1e-9)


def test_starts_bound_what_they_say():
  read = start.parse('alpha=0.1..1, E>0,k<5e2,c=-2,c<3')
  assert read == {'alpha': start.Start(0.1, 1.0), 'E': start.Start(0.0), 'k': start.Start(high=500.0),
                  'c': start.Start(None, 3.0, -2.0)}
  y = 1 + 50 * X ** -0.9
  fit = estimate.fit(written.form('E + A/x^alpha', 'alpha=0.1..0.5', ['x']), columns('x'), y, LSQ)
  assert fit.coefficients['alpha'] == 0.5 and fit.at_bound == ('alpha',)
  fit = estimate.fit(written.form('E + A/x^alpha', 'A=10..90,E<2,alpha=0.3', ['x']), columns('x'), y, LSQ)
  assert fit.coefficients['A'] == pytest.approx(50) and fit.starts < 400
  fit = estimate.fit(written.form('E - A*x^-alpha', 'A=-100..100', ['x']), columns('x'), y, LSQ)
  assert fit.coefficients['A'] == pytest.approx(-50)


@pytest.mark.parametrize('text, starts, words', [
    ('E + A$N', '', 'character 6: E + A>>$<<N'),
    ('E + (A/N^a', '', "never closed at character 5: E + >>(<<A/N^a"),
    ('E + A/N^a)', '', 'character 10: E + A/N^a>>)<<'),
    ('E + A/N^', '', 'at the end: E + A/N^>> <<'),
    ('E + A/N^a + f(D)', '', "'f(D)' is not allowed (at character 13"),
    ("E + A/N^a + 'b'", '', 'is not a number'), ('E + (A > N)', '', "'A > N' is not a number"),
    ('E + exp + A/N^a', '', 'exp is a function'),
    ('E + A/parms^a', '', "unknown column parms (at character 7: E + A/>>parms<<^a); did you mean 'params'?"),
    ('E + A/model.width^a', '', 'unknown column model.width'),
    ('E + A/C^a', '', 'no column flops (at character 7: E + A/>>C<<^a); --columns=flops=NAME'),
    ('E + A/x^a', '', '--x=COLUMN'),
    ('E + 0*q + A/N^a', '', 'q does not matter (at character 7: E + 0*>>q<< + A/N^a)'),
    ('E + F + A/N^a', '', 'E and F cannot be told apart'), ('A*B/N^a', '', 'A and B cannot be told apart'),
    ('a + b', '', 'has no column'), ('N^2', '', 'has no coefficient'),
    ('E + A/N^a', 'N>0', 'N is a column'), ('E + A/N^a', 'b>0', 'b is not in'),
    ('E + A/N^a', 'a=3..1', 'expected low < high'), ('E + A/N^a', 'a=1..2,a=5', 'a start between them'),
    ('E + A/N^a', 'E>0, a~1', 'character 6: E>0, >>a<<~1'), ('E + A/N^a', 'a=1e999..2', 'expected low < high')])
def test_errors_show_the_place(text, starts, words):
  with pytest.raises(UserError) as error:
    written.form(text, starts, ['params', 'examples'])
  assert words in str(error.value)


def test_a_table_with_its_own_names(tmp_path):
  """N is the column params, or N where there is none; what is no column is a coefficient."""
  y = 0.5 + 20 * N ** -0.2 + 900 * D ** -0.4
  lines = [f'{n},{d},{w},{v}' for n, d, w, v in zip(N, D, np.resize([1.0, 2.0, 3.0], len(N)), y)]
  (tmp_path / 'points.csv').write_text('\n'.join(['N,D,val/width,loss', *lines]) + '\n')
  found = load([tmp_path / 'points.csv'], form=CHINCHILLA)
  assert set(found.columns) == {'params', 'examples'}
  form = written.form(CHINCHILLA, '', found.columns)
  law = analysis.analyse(found, analysis.Settings(form, LSQ, 20, holdout='largest:3')).law
  assert law['form'] == CHINCHILLA and law['coefficients']['beta'] == pytest.approx(0.4, rel=1e-4)
  tied = load([tmp_path / 'points.csv'], form='E + A/(N * val/width)^alpha')
  assert form.inputs == ('params', 'examples') and {'params', 'val/width'} <= set(tied.columns)


def test_the_compute_optimum_of_a_written_form_is_that_of_the_built_in_one():
  y = 1.7 + 406 * N ** -0.34 + 410 * D ** -0.28
  table = {'params': N, 'examples': D, 'flops': 6 * N * D, 'loss': y * np.exp(
      0.01 * np.random.default_rng(0).standard_normal(len(N)))}
  laws = [vit_jax.fit(table, form=form, budget=[1e17, 1e20], bootstrap=20) for form in ('chinchilla', CHINCHILLA)]
  built_in, text = (law.analysis.law['compute_optimal'] for law in laws)
  for a, b in zip(built_in['rows'], text['rows']):
    for name in ('params', 'examples', 'loss', 'loss_ci95'):
      assert b[name] == pytest.approx(a[name], rel=2e-3), name
  for name, found in built_in['exponents'].items():
    assert text['exponents'][name]['value'] == pytest.approx(found['value'], rel=2e-3)
  rate = vit_jax.fit(table, form='c*N^-a*D^-b', bootstrap=0)
  assert rate.analysis.law['compute_optimal'] is None  # it has no optimum between the ends


def test_the_command_draws_a_form_of_other_columns(tmp_path):
  random = np.random.default_rng(0)
  rows = [f'{w},{d},{(0.5 + 20 / w ** 0.8 + 0.7 / d) * np.exp(0.01 * random.standard_normal())}' for w, d in zip(W, L)]
  (tmp_path / 'points.csv').write_text('\n'.join(['width,depth,loss', *rows]) + '\n')
  done = command_line.run('law', tmp_path / 'points.csv', '--form=E + A/width^a + B/depth^b', '--start=a=0.1..2',
                          '--bootstrap=20', '--holdout=width>=1024', f'--out={tmp_path}/out',
                          env=command_line.ON_CPU | {'COLUMNS': '100'})
  assert done.returncode == 0, done.stderr
  assert 'loss = E + A/width^a + B/depth^b' in done.stdout and 'width x depth' in done.stdout
  page = (tmp_path / 'out/report.html').read_text()
  assert '"width = ' in page and "--start=a=0.1..2" in page and (tmp_path / 'out/law.png').exists()
