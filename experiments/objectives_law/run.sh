#!/bin/bash
# All runs and laws, into runs/objectives_law: experiments/objectives_law/run.sh [fit|register|held_out|score|laws].
# The icons are prepared before.
set -e
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0  # runs share programs
RUNS=runs/objectives_law HELD=runs/objectives_law_held_out SWEEP=experiments/objectives_law/sweep.py
PROBES='val/probe/error test/probe/error' NAMED='val_zero_shot_error test_zero_shot_error'
law() { python -m vit_jax.law "$1" --group=objective --metric="$2" "${@:3}"; }
of_width() { law "$1" "$2" --form="A*$3^a*flops^b" --start='a=-2..2,b=-2..1' "${@:4}"; }  # PLACE METRIC WIDTH FLAGS..
name() { echo "${1//\//_}"; }
fit() {
  python -m vit_jax.sweep --sweep=$SWEEP:fit --workdir=$RUNS --jobs=1
  python experiments/objectives_law/zero_shot.py $RUNS $RUNS/zero_shot.csv
}
register() {
  for metric in $PROBES; do
    of_width $RUNS "$metric" model.width --target=model.width=24,flops=3e12 \
      --register="$RUNS/registered/$(name "$metric").json"
  done
  for metric in $NAMED; do
    of_width $RUNS/zero_shot.csv "$metric" width --target=width=24,flops=3e12 \
      --register="$RUNS/registered/$metric.json"
  done
}
held_out() {
  python -m vit_jax.sweep --sweep=$SWEEP:held_out --workdir=$HELD --jobs=1
  python experiments/objectives_law/zero_shot.py $HELD $HELD/zero_shot.csv
}
score() {
  for metric in $PROBES; do
    python -m vit_jax.law $HELD --score="$RUNS/registered/$(name "$metric").json"
  done
  for metric in $NAMED; do
    python -m vit_jax.law $HELD/zero_shot.csv --score="$RUNS/registered/$metric.json"
  done
}
laws() {  # what a FLOP buys: the better width of each budget
  for metric in $PROBES; do
    python -m vit_jax.law $RUNS $HELD --form=power --x=flops --group=objective --frontier=4 --metric="$metric" \
      --out="$RUNS/law_$(name "$metric")"
  done
  for metric in $NAMED; do
    python -m vit_jax.law $RUNS/zero_shot.csv $HELD/zero_shot.csv --form=power --x=flops --group=objective --frontier=4 \
      --metric="$metric" --out="$RUNS/law_$metric"
  done
}
for part in ${1:-fit register held_out score laws}; do $part; done
