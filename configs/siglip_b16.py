"""SigLIP of ViT-B/16: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training".

  python -m vit_jax.main --config=configs/siglip_b16.py --config.data.source=pairs:DIR    9 billion pairs
  python -m vit_jax.main --config=configs/siglip_b16.py:coco                              40 epochs of COCO's captions
  python -m vit_jax.plan --config=configs/siglip_b16.py --tpu=v5e-256            memory and time on chips

Two towers of the same shape, attention pooling, embeddings of 768 numbers, t = 10 and b = -10 at the start, batch
32,768, AdamW with beta2 = 0.95 (sec. 4.6). Tokens are those of a SentencePiece file of 32,000, 64 a text, as in the
released models: --config.data.text.tokenizer=FILE. Learning rate, decay and warm-up are those of big_vision's
classifiers. Published with WebLI, which is not public; SigLIP 2 of this shape: 78.2% zero-shot on ImageNet. In :coco
the tokens are learnt from the captions, and there is no published result. Not run by us yet.

A step fits into the 256 chips of v5e-256: 8.9 GB a chip, and 99% of the peak FLOPs at the floor. On v5e-16 add
--config.system.microbatches=16: 9.3 GB and 92%, as the text tower runs forward twice. The compiler's figures are those
of --config.system.execution.scan=True (experiments/pair_loss).
"""

from vit_jax import config
from vit_jax.models import text, vit

ARGS = ('coco',)


def get_config(arg=''):
  c = config.defaults('vit', 'contrast')
  c.model.update(vit.size('B/16'))
  c.model.pool, c.model.gelu, c.model.dtype = 'map', 'tanh', 'bfloat16'
  c.loss.text.update(text.SIZES['siglip_b'])
  c.loss.text.vocab_size = 32_000
  c.data.text.length = 64
  c.data.source, c.data.image_size, c.data.channels = 'tfds:coco_captions', (224, 224), 3
  c.data.batch_size = 32_768
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.beta2 = 1e-3, 0.1, 0.95
  c.schedule.warmup_steps = 10_000
  c.train.examples = 9_000_000_000
  c.system.execution.remat = 'dots'
  c.system.workers = 8
  if arg == 'coco':
    c.loss.text.vocab_size, c.data.text.tokenizer = None, 'bpe'
    c.data.batch_size, c.schedule.warmup_steps = 4096, 100
    c.train.examples, c.train.epochs = 0, 40
  return c
