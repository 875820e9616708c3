# %% [markdown]
# # Quantize your own ViT without data
#
# Any Vision Transformer of torchvision, transformers or timm will do; this one is torchvision's class, trained here on
# handwritten digits. Its training data then plays no part any more: images are made out of the model, and calibrate a
# copy of it with 4-bit weights and 8-bit activations. A minute on two cores.

# %%
import digits
import torch
import torchvision

import smi

# %%
torch.manual_seed(0)
model = torchvision.models.VisionTransformer(
    image_size=16, patch_size=4, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
)
digits.train(model)
print(f"in full precision: {digits.accuracy(model):.1f}%")

# %% [markdown]
# The model says nothing of how its pictures are normalised. `to_timm` gives a timm model with the same logits, whose
# `pretrained_cfg` is where that is looked for. torchvision's own weights need no such step: ImageNet's mean and
# standard deviation are taken.

# %%
vit = smi.to_timm(model)
vit.pretrained_cfg |= {"mean": (digits.MEAN,) * 3, "std": (digits.STD,) * 3}

# %% [markdown]
# "quick" is 20 iterations, which calibrate nearly as well as long runs do.

# %%
images = smi.invert(vit, count=32, iterations="quick", seed=0)
print(images)

# %%
small = smi.quantize(vit, images, weight_bits=4, activation_bits=8)
print(f"with 4-bit weights and 8-bit activations: {digits.accuracy(small):.1f}%")

# %% [markdown]
# `small` is a copy and takes what the model takes; the model itself is as it was. In a notebook, `images` shows them.

# %%
images  # noqa: B018
