#!/usr/bin/env bash
# The logs behind this folder's README, and its table: experiments/speed/run.sh TORCH_PYTHON TF_PYTHON OUT
# About 50 minutes on a quiet machine. TORCH_PYTHON has torch, torchvision, transformers and Pillow, TF_PYTHON tensorflow.
set -eu
out=$(realpath -m "${3:?TORCH_PYTHON TF_PYTHON OUT are needed}")
cd "$(dirname "$0")/../.."
mkdir -p "$out"
python experiments/speed/training.py "$1" > "$out/training.log"
python experiments/speed/host.py > "$out/host.log"
python experiments/speed/packing.py > "$out/packing.log"
python experiments/speed/ladder.py > "$out/ladder.log"
python experiments/speed/input.py "$2" "$1" > "$out/input.log"
python experiments/speed/kernels.py > "$out/kernels.log"
python experiments/speed/table.py "$out"
