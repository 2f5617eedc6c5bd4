"""Plays the life of a sweep on spot machines again and again, and says whether each came out the same.

  python experiments/spot_life/lives.py [TIMES]

A life is the test `the_life` of tests/test_spot_life.py, with a server of its own.
"""

import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

import jax

ROOT = pathlib.Path(__file__).parents[2]
LIFE = 'tests/test_spot_life.py::test_the_life_of_a_sweep_on_spot_machines'


def life() -> tuple[bool, float, dict[str, str]]:
  """(whether it passed, its seconds, what the test recorded) of one life."""
  with tempfile.TemporaryDirectory() as folder:
    report, start = pathlib.Path(folder, 'report.xml'), time.perf_counter()
    done = subprocess.run([sys.executable, '-m', 'pytest', '-n0', '-q', '--slow=all', f'--junitxml={report}', LIFE],
                          cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - start
    case = ElementTree.parse(report).find('.//testcase')
  if done.returncode:
    print(done.stdout)
  skipped = case.find('skipped') is not None
  return not done.returncode and not skipped, seconds, {p.get('name'): p.get('value') for p in case.iter('property')}


def main() -> int:
  times, passed, logs = int(sys.argv[1]) if len(sys.argv) > 1 else 10, 0, set()
  print(f'{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}, JAX {jax.__version__}')
  for number in range(1, times + 1):
    before = os.getloadavg()[0]
    good, seconds, found = life()
    passed += good
    logs |= {found.get('undisturbed'), found.get('killed')}
    print(f'life {number}: {"passed" if good else "FAILED"} in {seconds:.0f} s (load before: {before:.1f}), hosts '
          f'{found.get("hosts")}, metrics.jsonl killed {found.get("killed")}, undisturbed {found.get("undisturbed")}',
          flush=True)
  print(f'{passed} of {times} passed; {len(logs)} different metrics.jsonl in {2 * times} runs')
  return 0 if passed == times and len(logs) == 1 else 1


def _processor():
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  return next(line.partition(': ')[2] for line in lines if line.startswith('model name'))


if __name__ == '__main__':
  sys.exit(main())
