#!/usr/bin/env bash
# Runs .ci/run in a clean clone of the last commit, and keeps what it says of times and results.
#
#   experiments/ci/ci.sh FOLDER [all]      writes FOLDER/ci.log (short) and FOLDER/whole.log
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1" && out=$(cd "$1" && pwd) && shift
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone -q "$root" "$clone/vit_jax" && cd "$clone/vit_jax" || exit 1
{
  echo "commit $(git rev-parse --short HEAD), $(date -u +%F), .ci/run ${*:-}"
  echo "$(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(free -g | awk '/Mem:/ {print $2}') GB"
} | tee "$out/ci.log"
.ci/run "$@" >"$out/whole.log" 2>&1
code=$?
grep -E '^== |^ *[0-9]+ s  |^(FAILED|ERROR) |[0-9]+ passed|All checks passed' "$out/whole.log" | tee -a "$out/ci.log"
echo "exit $code" | tee -a "$out/ci.log"
exit $code
