#!/usr/bin/env bash
# The logs behind this folder's README: experiments/plan/run.sh OUT [NAME..]; with names, those alone
# A compile takes one to three minutes of processor time. A plan that has a log in OUT is not made again.
set -u
results=$(realpath -m "${1:?OUT, a folder for the logs, is missing}")
names=" ${*:2} "
cd "$(dirname "$0")/../.."
mkdir -p "$results"
mesh() { echo "--config.system.mesh.data=$1 --config.system.mesh.fsdp=$2 --config.system.mesh.tensor=$3"; }
plan() {  # NAME FLAGS...
  local name=$1 TIMEFORMAT='processor time %U s user, %S s system, of all its processes'
  shift
  [ -s "$results/$name.log" ] && return
  [[ $names != "  " && $names != *" $name "* ]] && return
  echo "python -m vit_jax.plan $*" >"$results/$name.tmp"
  { time python -m vit_jax.plan "$@" >>"$results/$name.tmp" 2>"$results/$name.progress"; echo "exit code $?"; } \
    >>"$results/$name.tmp" 2>&1
  mv "$results/$name.tmp" "$results/$name.log"
}
b16='--config=configs/vit_b16.py --tpu=v5e-16'
g14='--config.model.width=1408 --config.model.depth=40 --config.model.mlp_dim=6144 --config.model.num_heads=16
  --config.model.patch_size=14'
vit_22b='--config.model.width=6144 --config.model.depth=48 --config.model.mlp_dim=24576 --config.model.num_heads=48
  --config.model.patch_size=14'
remat() { echo "--config.system.execution.remat=$1"; }

plan b16_batch1024 $b16
plan b16_batch4096_dots $b16 --config.data.batch_size=4096 $(remat dots) $(mesh 1 16 1)
plan b16_batch4096_full $b16 --config.data.batch_size=4096 $(remat full) $(mesh 1 16 1)
plan g14_v5e256 --config=configs/vit_b16.py $g14 --tpu=v5e-256 --config.data.batch_size=4096 $(remat dots) $(mesh 8 32 1)
plan vit_22b_v5p512 --config=configs/vit_b16.py $vit_22b --tpu=v5p-512 --config.data.batch_size=4096 $(remat dots) \
  $(mesh 2 128 1)
plan b16_two_slices $b16 --num_slices=2 --config.data.batch_size=4096 $(remat dots) $(mesh 2 16 1)
plan b16_batch1024_search $b16 --max_hbm_gb=3.3 --search --search_seconds="${SEARCH_SECONDS:-240}"
