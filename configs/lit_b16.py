"""LiT: a text tower learns to speak of what a frozen ViT-B/16 sees (Zhai et al. 2022, "LiT"; with SigLIP's loss, 2023).

  python -m vit_jax.main --config=configs/lit_b16.py                                      COCO's captions
  python -m vit_jax.main --config=configs/lit_b16.py --config.data.source=pairs:DIR       pictures and texts of yours
  python -m vit_jax.predict RUN PICTURES --names='a cat,a dog' --template='a photo of {}'

The values are those of big_vision's configs/proj/image_text/siglip_lit_coco.py: 5,000 steps of 512 pairs, Adam at 1e-3
with 150 steps of warm-up and cosine, decay 0.01 (not multiplied by the rate there: 10 here), gradient clipped to 1,
RandAugment(2, 10) and flips, 16 tokens, t = 10 and b = -2.71. What differs: there the text tower is a pre-trained BERT;
here it starts at random, and its tokens are learnt from the captions. Pictures are cut to a square, not squeezed into
one. Published (LiT-B16B, with a BERT and other data): 72.07% zero-shot on ImageNet. Not run by us yet.

The image tower may come from anywhere: --config.pretrained.path=RUN, a bundle, a file of weights or hf:OWNER/NAME. Of
weights with two towers the text tower is left out. To train the image tower too, at a tenth of the rate:
--config.optimizer.train_only=() --config.optimizer.rates="(('encoder/*', 0.1),)".
"""

from vit_jax import config
from vit_jax.models import text

ARGS = ()


def get_config(arg=''):
  del arg
  c = config.defaults('vit', 'contrast')
  c.pretrained.path = 'hf:google/vit-base-patch16-224-in21k'
  c.pretrained.ignore = ('text/*',)  # also of weights that have a text tower
  c.optimizer.train_only = ('text/*', 'log_scale', 'bias')
  c.model.dtype = 'bfloat16'
  c.loss.bias = -2.71
  c.loss.text.update(text.SIZES['siglip_b'])
  c.data.source, c.data.image_size, c.data.channels = 'tfds:coco_captions', (224, 224), 3
  c.data.text.tokenizer, c.data.text.length = 'bpe', 16
  c.data.batch_size = 512
  c.data.augment.flip = True
  c.data.augment.randaugment_operations = 'big_vision'
  c.data.augment.randaugment_layers, c.data.augment.randaugment_magnitude = 2, 10
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 10.0
  c.schedule.warmup_steps = 150
  c.train.steps = 5_000
  c.system.workers = 8
  return c
