# %% [markdown]
# # Invert a checkpoint of Hugging Face
#
# `smi.to_timm` reads a folder as transformers' `save_pretrained` writes it: weights, labels, and from the image
# processor's file the normalisation. So that nothing is downloaded here, the folder is made first, with random weights;
# put the path of yours in its place. Seconds on two cores.

# %%
import tempfile
from pathlib import Path

import torch
import transformers

import smi

# %%
folder = Path(tempfile.mkdtemp())
torch.manual_seed(0)
config = transformers.ViTConfig(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=96,
    image_size=32,
    patch_size=8,
    id2label={0: "cat", 1: "dog", 2: "cow"},
)
transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")

# %%
model = smi.to_timm(folder / "vit")
print(model.pretrained_cfg["label_names"], model.pretrained_cfg["mean"])

# %% [markdown]
# A checkpoint makes a long run safe: Ctrl-C saves it, and the same call goes on from there.

# %%
images = smi.invert(
    model,
    count=8,
    iterations=60,
    stopping=smi.Stopping(at=(20, 40), drop=0.3),
    targets=[0, 1, 2, 0, 1, 2, 0, 1],
    checkpoint=folder / "run.safetensors",
)
print(images)
paths = images.save_png(folder / "pictures")
print(f"{len(paths)} pictures, the first is {paths[0].name}")

# %%
images.save(folder / "images.safetensors")
print(smi.SyntheticImages.load(folder / "images.safetensors") == images)
