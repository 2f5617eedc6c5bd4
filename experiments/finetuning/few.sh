#!/usr/bin/env bash
# 60 pictures in three classes, 20 of each, out of those that shoes.py writes; the other 690 to score. Then what a
# temperature does to two models of 1,000 pictures.
#   experiments/finetuning/few.sh
set -eu
for class in sandal sneaker bag; do
  mkdir -p runs/few/pictures/$class runs/few/unseen/test/$class
  ls runs/shoes/pictures/$class/* | head -n 20 | xargs -I{} cp {} runs/few/pictures/$class/
  ls runs/shoes/pictures/$class/* | tail -n +21 | xargs -I{} cp {} runs/few/unseen/test/$class/
done
recipe="--config=configs/finetune_folder.py --config.pretrained.path=runs/shoes/pretrained"
few=--config.data.source=folder:runs/few/pictures
for steps in 0 300; do
  echo "== the whole model, train.least_steps=$steps"
  python -m vit_jax.main $recipe $few --config.pretrained.probe=never --config.train.least_steps=$steps \
    --workdir=runs/few/all$steps
  python -m vit_jax.main --evaluate=runs/few/all$steps/bundle $recipe --config.data.source=folder:runs/few/unseen
done > few.log
echo "== frozen features" >> few.log
python -m vit_jax.main $recipe $few --workdir=runs/few/probe >> few.log
python -m vit_jax.main --evaluate=runs/few/probe/probe/bundle $recipe --config.data.source=folder:runs/few/unseen \
  >> few.log

many="--config=configs/fashion_mnist.py --config.data.unique_examples=1000 --config.schedule.warmup_steps=20
      --config.evaluate.every=1000000 --config.evaluate.calibrate=100"
{
  echo "== 40 epochs, without label smoothing or augmentation"
  python -m vit_jax.main $many --config.train.epochs=40 --config.loss.label_smoothing=0 \
    --config.data.augment.crop=none --config.data.augment.flip=False --workdir=runs/calibrated2
  python -m vit_jax.main --evaluate=runs/calibrated2
  echo "== 60 epochs with both"
  python -m vit_jax.main $many --config.train.epochs=60 --workdir=runs/calibrated
  python -m vit_jax.main --evaluate=runs/calibrated
} > calibration.log
