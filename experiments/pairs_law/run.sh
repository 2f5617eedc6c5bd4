#!/bin/bash
# All runs and laws, into runs/pairs_law; icons are prepared: experiments/pairs_law/run.sh [fit|register|held_out|score]
# WHICH=long_ experiments/pairs_law/run.sh: the same of longer runs
set -e
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0  # runs share programs
WHICH=${WHICH:-}
runs() {  # fit|held_out
  python -m vit_jax.sweep --sweep="experiments/pairs_law/sweep.py:$WHICH$1" --workdir="runs/pairs_law/$WHICH$1" --jobs=1
}
law() {  # METRIC FLAGS..
  local metric=$1
  shift
  python -m vit_jax.law "runs/pairs_law/${WHICH}fit" --form="$(form "$metric")" --start="$(start "$metric")" \
    --columns=params=params_non_embedding --metric="$metric" "$@"
}
form() {  # of runs of at least 1,024 steps, the odds of a right name are a power law
  if [ "$WHICH$1" = long_test/zero_shot_error ]; then echo '1/(1 + A*N^a*D^b*data.batch_size^k)'
  else echo 'E + A/N^alpha + B*data.batch_size^k/D^beta'; fi
}
start() { [ "$WHICH$1" = long_test/zero_shot_error ] && echo 'A=1e-12..1,a=0..2,b=0..2,k=-2..1' || echo 'k=-1..1'; }
name() { echo "${1//[\/@]/_}"; }
targets() {  # BATCH, and the least of the pairs seen: three numbers of the largest model, and one of widths 32 and 48
  local n; for n in 1 2 4; do echo -n "params=200192,data.batch_size=$1,examples=$((n * $2)); "; done
  echo "params=50944,data.batch_size=$1,examples=$((8 * $2)); params=113280,data.batch_size=$1,examples=$((8 * $2))"
}
METRICS='val/loss@256 test/loss@256 test/zero_shot_error'
register() {
  local target; [ "$WHICH" ] && target=$(targets 64 65536) || target=$(targets 128 16384)
  for metric in $METRICS; do
    law "$metric" --target="$target" --register="runs/pairs_law/${WHICH}registered/$(name "$metric").json" \
      --out="runs/pairs_law/$WHICH$(name "$metric")"
  done
}
score() { python -m vit_jax.law "runs/pairs_law/${WHICH}held_out" --score="runs/pairs_law/${WHICH}registered"; }
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
for part in ${1:-fit register held_out score}; do
  case $part in fit | held_out) runs "$part" ;; *) $part ;; esac
done
