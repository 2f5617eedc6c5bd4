"""Every architecture of timm's registry of our families, and every class of transformers, imported and compared.

  python experiments/interop/registry.py [--timm] [--transformers] [--only=NAME]

Each is built small with random parameters, saved by its own program, imported by `vit_jax.interop.read`, and its
outputs on two random pictures are compared: equal (1e-4), refused (with the words), or wrong, which must be 0.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings('ignore')
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import timm_models  # noqa: E402
import transformers_models  # noqa: E402
from compare import Outcome  # noqa: E402

from vit_jax.interop import architectures  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / 'results'


def of_timm(name):
  kind, arguments = architectures.table().get(name, ('unknown', {}))
  built = timm_models.build(name, kind, arguments)
  if isinstance(built, str):
    return Outcome(name, 'not built', built)
  with tempfile.TemporaryDirectory() as place:
    return timm_models.outcome(name, built[0], timm_models.input_size(built[0]), pathlib.Path(place))


def of_transformers(name):
  with tempfile.TemporaryDirectory() as place:
    return transformers_models.outcome(name, pathlib.Path(place))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--timm', action='store_true')
  parser.add_argument('--transformers', action='store_true')
  parser.add_argument('--only', default='', help='names that begin with this')
  flags = parser.parse_args()
  both = not (flags.timm or flags.transformers)
  torch.set_num_threads(1)
  tasks = [(of_timm, name) for name in timm_models.names()] if flags.timm or both else []
  tasks += [(of_transformers, name) for name in transformers_models.names()] if flags.transformers or both else []
  outcomes = []
  for call, name in tasks:
    if name.startswith(flags.only):
      outcomes.append(call(name))
      found = outcomes[-1]
      error = '' if found.error is None else f'{found.error:.1e} of {found.scale:.1f}'
      print(f'{name:58} {found.verdict:10} {error} {found.words}', flush=True)
  counts = collections.Counter(found.verdict for found in outcomes)
  summary = {'timm': timm.__version__, 'transformers': transformers.__version__, 'torch': torch.__version__,
             'tried': len(outcomes), **{word: counts[word] for word in ('equal', 'refused', 'wrong', 'not built')}}
  print(json.dumps(summary))
  if not flags.only:
    RESULTS.mkdir(exist_ok=True)
    lines = [json.dumps(summary), *(json.dumps(dataclasses.asdict(found)) for found in outcomes)]
    name = 'registry' if both else f'registry_{"timm" if flags.timm else "transformers"}'
    (RESULTS / f'{name}.jsonl').write_text('\n'.join(lines) + '\n')
  return bool(counts['wrong'])


if __name__ == '__main__':
  sys.exit(main())
