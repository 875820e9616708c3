# %% [markdown]
# # Teach a student without data
#
# A teacher knows handwritten digits. Sparse images are made out of it, and a student with random weights learns from
# those alone to answer as the teacher does. Its training pictures play no part in it. A minute on two cores.

# %%
import digits
import torch
from timm.models.vision_transformer import VisionTransformer

import smi


# %%
def vit():
    return VisionTransformer(img_size=16, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=10)


torch.manual_seed(0)
teacher = digits.train(vit(), epochs=20)
teacher.pretrained_cfg = {"mean": (digits.MEAN,) * 3, "std": (digits.STD,) * 3}
print(f"teacher: {digits.accuracy(teacher):.1f}%")

# %% [markdown]
# 256 images, of which 5 of 16 patches are left. A digit that is mirrored is no digit any more, so nothing is flipped.

# %%
images = smi.invert(
    teacher,
    count=256,
    recipe=smi.recipe("deepinversion", iterations=40, flip=0),
    stopping=smi.Stopping(at=(5, 10), drop=0.4),
    targets=[i % 10 for i in range(256)],
    seed=0,
)
print(images)

# %% [markdown]
# `distil` teaches a copy of the student, and its curve says what it scored on the test pictures on the way.

# %%
student = vit()
recipe = smi.transfer_recipe("default", temperature=4, flip=0, jitter=0.125)
run = smi.distil(
    teacher,
    student,
    images,
    steps=200,
    recipe=recipe,
    evaluate=lambda model: {"top1": digits.accuracy(model)},
    evaluate_every=50,
)
for entry in run.curve:
    print(f"student after {entry['step']} steps: {entry['top1']:.1f}%")

# %% [markdown]
# What of that is due to the inversion? The control sees noise, through as many patches, drawn at random. At this size
# it gets most of the way by itself: read such figures beside it.

# %%
noise = smi.SyntheticImages(torch.rand(256, 3, 16, 16), images.targets)
few = smi.transfer_recipe(recipe, patches=images.kept.shape[1])
control = smi.transfer(teacher, student, noise, steps=200, recipe=few)
print(f"student that saw noise: {digits.accuracy(control):.1f}%")
