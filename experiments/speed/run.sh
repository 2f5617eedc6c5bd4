#!/usr/bin/env bash
# Every timing of this folder, and the table: experiments/speed/run.sh TORCH_PYTHON TF_PYTHON
# On a quiet machine, about 50 minutes. TORCH_PYTHON has torch, torchvision, transformers and Pillow, TF_PYTHON tensorflow.
set -eu
cd "$(dirname "$0")/../.."
results=experiments/speed/results
python experiments/speed/training.py "$1" > $results/training.log
python experiments/speed/host.py > $results/host.log
python experiments/speed/packing.py > $results/packing.log
python experiments/speed/ladder.py > $results/ladder.log
python experiments/speed/input.py "$2" "$1" > $results/input.log
for blocks in jit shard_map; do
  python -m vit_jax.plan --config=configs/vit_b16.py --tpu=v5e-16 --config.system.execution.remat=dots \
    --config.system.execution.blocks=$blocks > $results/b16_v5e16_$blocks.log
done
python experiments/speed/kernels.py > $results/kernels.log
python experiments/speed/table.py
