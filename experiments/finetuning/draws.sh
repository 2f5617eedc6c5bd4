#!/usr/bin/env bash
# Four folders of 60 pictures: finetune_folder on each, and its scores on pictures that it has not seen.
#   experiments/finetuning/draws.sh STAMPS
set -eu
recipe="--config=configs/finetune_folder.py --config.pretrained.path=runs/small/dinov2"
for seed in 0 1 2 3; do
  echo "== draw $seed"
  rm -rf runs/small/pictures runs/small/unseen
  python experiments/finetuning/small_folder.py --stamps="$1" --out=runs/small --seed=$seed
  python -m vit_jax.main $recipe --config.data.source=folder:runs/small/pictures --workdir=runs/small/run$seed 2>&1 |
    grep -E '^(data|k-NN|linear|calibrated)'
  python -m vit_jax.main --evaluate=runs/small/run$seed/probe/bundle $recipe \
    --config.data.source=folder:runs/small/unseen 2>&1 | grep -E '^(accuracy|calibration)'
done
