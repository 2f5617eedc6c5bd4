"""Writes vit_hybrid.npz: a small random hybrid of timm's (written with 1.0.31), its pictures and its logits.

  python tests/golden/make_hybrid_golden.py        needs torch, torchvision and timm; vit_jax needs none of them

Parameters are rounded to float16 before the logits are computed, and stored so.
"""

import functools
import pathlib

import numpy as np
import torch
from timm.layers import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed


def main():
  torch.manual_seed(0)
  backbone = ResNetV2(layers=(1, 1), channels=(128, 256), stem_chs=32, num_classes=0, global_pool='', in_chans=3,
                      preact=False, stem_type='same', conv_layer=functools.partial(StdConv2dSame, eps=1e-8))
  model = VisionTransformer(img_size=(32, 48), patch_size=1, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2,
                            num_classes=5, embed_layer=functools.partial(HybridEmbed, backbone=backbone)).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_((0.3 * torch.randn(parameter.shape)).half().float())
    images = torch.randn(2, 3, 32, 48)
    logits = model(images)
  tensors = {f'param:{name}': value.half().numpy() for name, value in model.state_dict().items()}
  np.savez_compressed(pathlib.Path(__file__).with_name('vit_hybrid.npz'), images=images.numpy(), logits=logits.numpy(),
                      **tensors)


if __name__ == '__main__':
  main()
