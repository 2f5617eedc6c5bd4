#!/bin/bash
# All runs and laws, into runs/objectives_law: experiments/objectives_law/run.sh. The icons are prepared before.
set -e
export JAX_COMPILATION_CACHE_DIR=$PWD/runs/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0  # runs share programs
python -m vit_jax.sweep --sweep=experiments/objectives_law/sweep.py --workdir=runs/objectives_law --jobs=1
LAW='python -m vit_jax.law runs/objectives_law --form=power --x=flops --group=objective --frontier=3'
for split in val test; do
  $LAW --metric=$split/probe/error --out=runs/objectives_law/law_$split
done
