#!/bin/bash
# All runs and laws, into runs/pairs_law: experiments/pairs_law/run.sh [fit|register|held_out|score]. Icons are prepared.
set -e
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0  # runs share programs
fit() { python -m vit_jax.sweep --sweep=experiments/pairs_law/sweep.py:fit --workdir=runs/pairs_law/fit --jobs=1; }
law() {  # METRIC FLAGS..
  local metric=$1
  shift
  python -m vit_jax.law runs/pairs_law/fit --form='E + A/N^alpha + B*data.batch_size^k/D^beta' --start='k=-1..1' \
    --columns=params=params_non_embedding --metric="$metric" "$@"
}
name() { echo "${1//[\/@]/_}"; }
largest='params=200192,data.batch_size=128,examples='  # width 64
TARGETS="${largest}16384; ${largest}32768; ${largest}65536; params=50944,data.batch_size=128,examples=131072;
  params=113280,data.batch_size=128,examples=131072"
METRICS='val/loss@256 test/loss@256 test/zero_shot_error'
register() {
  for metric in $METRICS; do
    law "$metric" --target="$TARGETS" \
      --register="runs/pairs_law/registered/$(name "$metric").json" --out="runs/pairs_law/$(name "$metric")"
  done
}
held_out() {
  python -m vit_jax.sweep --sweep=experiments/pairs_law/sweep.py:held_out --workdir=runs/pairs_law/held_out --jobs=1
}
score() { python -m vit_jax.law runs/pairs_law/held_out --score=runs/pairs_law/registered; }
for part in ${1:-fit register held_out score}; do $part; done
