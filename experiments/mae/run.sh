#!/bin/bash
# All runs and laws of this experiment into the folder runs/mae, one process at a time: experiments/mae/run.sh
set -e
python -m vit_jax.sweep --sweep=experiments/mae/sweep.py --workdir=runs/mae/ladder --jobs=1
python -m vit_jax.law runs/mae/ladder --form=power --x=flops --metric=probe/error --group=objective \
  --out=runs/mae/ladder_law
python -m vit_jax.law runs/mae/ladder --frontier=3 --form=power --x=flops --metric=probe/error --group=objective
python experiments/mae/labels.py tune
python experiments/mae/labels.py run 3e11 100 300 1000 3000
python experiments/mae/table.py runs/mae
python -m vit_jax.law runs/mae/points.csv --where='budget==3e11' --form=power_offset --x=labels --metric=error \
  --group=method --target='labels=10000' --register=runs/mae/registered.json
python experiments/mae/labels.py run 3e11 10000
python experiments/mae/labels.py run 1.2e12 100 300 1000 3000 10000
python experiments/mae/table.py runs/mae
for budget in 3e11 1.2e12; do
  python -m vit_jax.law runs/mae/points.csv --where="budget==$budget" --form=power_offset --x=labels --metric=error \
    --group=method --out=runs/mae/labels_law_$budget
done
python experiments/mae/pays.py runs/mae/points.csv 1.2e12
for n in 100 300 1000 3000 10000; do
  python -m vit_jax.law runs/mae/points.csv --where="labels==$n" --form=power --x=flops --metric=error --group=method
done
python -m vit_jax.law runs/mae/points.csv --x=labels --metric=error --score=runs/mae/registered.json
