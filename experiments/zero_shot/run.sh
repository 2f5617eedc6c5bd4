#!/bin/bash
# Both runs, their tables and figures, into runs/zero_shot: experiments/zero_shot/run.sh DATA_DIR [emoji|icons]
set -e
data=${1:?the folder of vit_jax.data.prepare is missing}
declare -A languages=([emoji]='en de es ja' [icons]='en')
TIMEFORMAT='CPU time: %U s user, %S s system'
for name in ${2:-emoji icons}; do
  run=runs/zero_shot/$name
  mkdir -p "$run"
  time python -m vit_jax.main --config="experiments/zero_shot/recipe.py:$name" --config.data.data_dir="$data" \
    --workdir="$run"
  time python experiments/zero_shot/score.py "$run" ${languages[$name]}
done
