"""A classifier of your own pictures, one folder a class, from a ViT-S/16 that knows ImageNet-21k (Steiner et al. 2022).

  python -m vit_jax.main --config=configs/finetune_folder.py --config.data.source=folder:pets/

On a GPU or TPU this trains all of the model. Where there is only a CPU it stops at frozen features: k nearest
neighbours and a linear probe, minutes for a thousand pictures, and prints the command that trains all of it
(--config.pretrained.probe=never). Either way it ends with a bundle and the line that uses it.

The weights come from huggingface.co (uv run --extra hub); any others: --config.pretrained.path=PATH, a run of yours, a
bundle, a folder of transformers or timm, or a .npz file. A picture that cannot be read is named and left out.

AdamW with layer-wise decay, stochastic depth and label smoothing as in BEiT's and MAE's fine-tuning (Bao et al. 2022;
He et al. 2022, table 9), shorter, but of 300 steps at least; it stops early where validation brings nothing more. From
100 validation pictures on, a temperature is fitted to them, so that the probabilities are as often right as they say.
"""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.pretrained.path = 'hf:timm/vit_small_patch16_224.augreg_in21k'
  c.pretrained.probe = 'on_cpu'
  c.model.drop_path = 0.1
  c.data.source, c.data.on_error = 'folder:pictures/', 'skip'
  c.data.batch_size = 32
  c.data.augment.crop, c.data.augment.crop_min_area, c.data.augment.flip = 'inception', 0.3, True
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.layer_decay = 2e-4, 0.05, 0.75
  c.schedule.warmup_steps = 10
  c.train.epochs, c.train.least_steps = 20, 300
  c.evaluate.patience, c.evaluate.calibrate = 4, 100
  return c
