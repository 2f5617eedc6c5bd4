#!/usr/bin/env bash
# Line coverage of vit_jax/ by the tests, with the programs that they start, also those that run a copy of it.
#
#   experiments/ci/coverage.sh FOLDER [PYTEST_ARGUMENTS...]      writes FOLDER/coverage.log
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1" && out=$(cd "$1" && pwd) && shift
cat >"$out/settings" <<END
[run]
source_pkgs = vit_jax
parallel = true
patch = fork, _exit, subprocess
sigterm = true
data_file = $out/data
[paths]
tree =
  $root/vit_jax
  */vit_jax
END
cd "$root"
export PYTHONPATH="$root:$root/experiments/ci" PYTEST_ADDOPTS='-p save_coverage' COVERAGE_PROCESS_START="$out/settings"
with=(uv run --extra test --with coverage)
"${with[@]}" coverage run --rcfile="$out/settings" -m pytest -q "$@" || echo 'some tests failed' >&2
"${with[@]}" coverage combine -q --rcfile="$out/settings"
{
  echo "commit $(git rev-parse --short HEAD), $(date -u +%F), pytest $*"
  "${with[@]}" coverage report --precision=2 --rcfile="$out/settings" --ignore-errors --skip-covered --sort=-miss
} | tee "$out/coverage.log"
