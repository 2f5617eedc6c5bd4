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
# What a language, an artist, a duplicate caption is worth: experiments/pairs_law/run.sh 'worth_fit worth_register ..'
declare -A FORMS=([artists]='A*pictures^a*artists^b' [captions]='A*each^a*steps^b' [languages]='A*languages^a*steps^b')
declare -A AT=([artists]='pictures=400,artists=32; pictures=800,artists=32' [captions]='each=64,steps=512;
  each=64,steps=1024' [languages]='languages=8,steps=512; languages=8,steps=1024')
KINDS=${KINDS:-artists captions languages}
worth() {  # fit|held_out
  for kind in $KINDS; do
    local folder=runs/pairs_law/worth/$1_$kind
    python -m vit_jax.sweep --sweep=experiments/pairs_law/worth.py:$1_$kind --workdir=$folder --jobs=1
    python experiments/pairs_law/worth.py $folder
  done
}
worth_fit() { worth fit; }
worth_register() {
  for kind in $KINDS; do
    python -m vit_jax.law runs/pairs_law/worth/fit_$kind/$kind.csv --metric=error --form="${FORMS[$kind]}" \
      --start='a=-1..1,b=-1..1' --target="${AT[$kind]}" --register=runs/pairs_law/worth/registered/$kind.json \
      --out=runs/pairs_law/worth/law_$kind
  done
}
worth_held_out() { worth held_out; }
worth_score() {
  for kind in $KINDS; do
    python -m vit_jax.law runs/pairs_law/worth/held_out_$kind/$kind.csv --score=runs/pairs_law/worth/registered/$kind.json
  done
}
for part in ${1:-fit register held_out score}; do $part; done
