"""Writes siglip.npz and clip.npz: transformers' SiglipModel and CLIPModel of random parameters, and what they compute.

  python tests/golden/make_pairs_golden.py      where torch, transformers and sentencepiece are installed
"""

import io
import json
import pathlib
import tempfile

import numpy as np

LENGTH, VOCABULARY = 16, 64
SHAPE = {'hidden_size': 16, 'intermediate_size': 24, 'num_attention_heads': 2}
TEXT = SHAPE | {'num_hidden_layers': 2, 'vocab_size': VOCABULARY, 'max_position_embeddings': LENGTH}
VISION = SHAPE | {'num_hidden_layers': 1, 'image_size': 8, 'patch_size': 4}
TEXTS = ('a cat', 'A Dog, running!', 'two  red hearts', '', "it's the fox")
LEARNT = ('a photo of a cat', 'a dog, running', 'two red hearts; and a star', 'the quick brown fox jumps over the dog')


def _siglip_tokenizer(folder):
  """A SentencePiece model with SigLIP's marks: 0 <pad>, which is not used, 1 </s>, 2 <unk>."""
  import sentencepiece
  import transformers
  file = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(LEARNT * 50), model_writer=file, vocab_size=VOCABULARY - 4, pad_id=0, eos_id=1, unk_id=2,
      bos_id=-1, hard_vocab_limit=False, minloglevel=2, character_coverage=1.0, num_threads=1,
      normalization_rule_name='identity')
  (folder / 'spiece.model').write_bytes(file.getvalue())
  return transformers.SiglipTokenizer(vocab_file=str(folder / 'spiece.model'))


def _clip_tokenizer():
  import transformers
  letters = "abcdefghijklmnopqrstuvwxyz!,;'"
  words = [*letters, *(f'{letter}</w>' for letter in letters), 'ca', 'cat</w>', '<|startoftext|>', '<|endoftext|>']
  return transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)},
                                    merges=[('c', 'a'), ('ca', 't</w>')])


def arrays(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
  """Parameters 'param:NAME', files of the tokenizer 'file:NAME', inputs, 'logits' of pictures with texts, 'loss'."""
  import torch
  import transformers
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    tokenizer = _siglip_tokenizer(folder) if kind == 'siglip' else _clip_tokenizer()
    tokenizer.save_pretrained(folder)
    files = {f'file:{path.name}': np.frombuffer(path.read_bytes(), np.uint8) for path in folder.iterdir()
             if path.name in ('spiece.model', 'tokenizer.json', 'tokenizer_config.json')}
  if kind == 'siglip':
    config = transformers.SiglipConfig(text_config=TEXT | {'projection_size': 16}, vision_config=VISION)
    model = transformers.SiglipModel(config)
  else:
    marks = {'eos_token_id': VOCABULARY - 1, 'bos_token_id': VOCABULARY - 2, 'pad_token_id': VOCABULARY - 1}
    config = transformers.CLIPConfig(text_config=TEXT | marks | {'projection_dim': 12},
                                     vision_config=VISION | {'projection_dim': 12}, projection_dim=12)
    model = transformers.CLIPModel(config)
  model.eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
  pixels = torch.randn(len(TEXTS), 3, 8, 8, generator=generator)
  tokens = tokenizer(list(TEXTS), padding='max_length', max_length=LENGTH, truncation=True, return_tensors='pt')
  with torch.no_grad():
    out = model(input_ids=tokens['input_ids'], pixel_values=pixels, return_loss=True)
  found = {f'param:{name}': parameter.detach().numpy() for name, parameter in model.named_parameters()}
  return found | files | {
      'pixels': pixels.numpy(), 'tokens': tokens['input_ids'].numpy(), 'texts': np.array(json.dumps(TEXTS)),
      'logits': out.logits_per_image.numpy(), 'loss': out.loss.numpy(), 'config': np.array(config.to_json_string())}


if __name__ == '__main__':
  for kind in ('siglip', 'clip'):
    np.savez_compressed(pathlib.Path(__file__).parent / f'{kind}.npz', **arrays(kind))
