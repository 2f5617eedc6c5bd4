"""Captions of pictures by ViT-S/16: a prefix language model (Wang et al. 2022, "SimVLM"; its decoder is the encoder).

  python -m vit_jax.main --config=configs/caption_s16.py                 40 epochs of COCO's captions
  python -m vit_jax.main --config=configs/caption_s16.py:cappa           the same with CapPa's parallel prediction
  python -m vit_jax.predict RUN PICTURES --caption --beams=4

The patches of the picture and the tokens of the text are one sequence. Five captions a picture, of which each step
reads one; a BPE of 8,192 tokens, learnt from them; 64 tokens a text. Rate, weight decay, clipping, beta2 and the share
of 75% in :cappa are those of CapPa's code in big_vision (Tschannen et al. 2023, "Image
Captioners Are Scalable Vision Learners Too"). It has a decoder of six layers of its own, 32,000 tokens, Adafactor and
batches of 8,192. No result is published for this model. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import vit

ARGS = ('cappa',)


def get_config(arg=''):
  c = config.defaults('vit', 'caption')
  c.model.update(vit.size('S/16'))
  c.model.pool, c.model.gelu, c.model.dtype = 'gap', 'tanh', 'bfloat16'
  c.loss.parallel = 0.75 if arg == 'cappa' else 0.0
  c.data.source, c.data.image_size, c.data.channels = 'tfds:coco_captions', (224, 224), 3
  c.data.text.tokenizer, c.data.text.length = 'bpe', 64
  c.data.batch_size = 1024
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.1
  c.optimizer.clip_norm = 1.0
  c.schedule.warmup_steps = 100
  c.train.epochs = 40
  c.system.workers = 8
  return c
