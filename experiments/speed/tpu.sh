#!/usr/bin/env bash
# What compiled steps move on TPUs, and the table of it: experiments/speed/tpu.sh OUT
# One program after the other, each once; a program takes 20 to 170 s of processor time. Needs the extra `plan`.
set -u
results=$(realpath -m "${1:?OUT, a folder for the logs, is missing}")
cd "$(dirname "$0")/../.."
mkdir -p "$results"
program() {  # NAME RECIPE SLICE FIELDS...
  local log=$results/movers_$1.log
  [ -s "$log" ] && return
  python experiments/speed/movers.py "${@:2}" > "$log.tmp" && mv "$log.tmp" "$log"
}
large='system.mesh.data=8 system.mesh.fsdp=32 data.batch_size=4096'
l16='model.width=1024 model.mlp_dim=4096 model.num_heads=16'
g14='model.width=1408 model.mlp_dim=6144 model.num_heads=16 model.patch_size=14'

program b16 vit_b16 v5e-16
program b16_batch4096 vit_b16 v5e-16 data.batch_size=4096
program b16_fsdp vit_b16 v5e-16 system.mesh.data=1 system.mesh.fsdp=16
program b16_384 vit_b16 v5e-16 'data.image_size=(384,384)' data.batch_size=336
program s16_v6e8 vit_s16 v6e-8
program deit_s16 deit_s16 v5e-16
program resnet50 resnet50 v5e-16
program convnext_t convnext_t v5e-16
program swin_t swin_t v5e-16
program b16_packed vit_b16 v5e-16 model.depth=2 data.batch_size=256 packed=4
for scan in True False; do
  program l16_depth24_scan$scan vit_b16 v5e-256 $large $l16 model.depth=24 system.execution.scan=$scan
  for depth in 2 3; do
    program g14_depth${depth}_scan$scan vit_b16 v5e-256 $large $g14 model.depth=$depth system.execution.scan=$scan
  done
done
python experiments/speed/tpu_table.py "$results"
