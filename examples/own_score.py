# %% [markdown]
# # A score of one's own
#
# At a stop, a score ranks the patches still in; the least important ones stop. The paper's score is the attention from
# the class token. This one asks the model itself: how much do the logits move when a patch's pixels do? Half a minute
# on two cores.

# %%
import digits
import torch
from timm.models.vision_transformer import VisionTransformer

import smi
from smi.geometry import take_patches

# %%
torch.manual_seed(0)
model = digits.train(
    VisionTransformer(img_size=16, patch_size=4, embed_dim=64, depth=3, num_heads=4, num_classes=10)
)
model.pretrained_cfg = {"mean": (digits.MEAN,) * 3, "std": (digits.STD,) * 3}


# %%
def saliency(model, image, kept, generator):
    """Importance [B, K] of the patches still in; the greatest stay. image: [B, C, H, W], kept: [B, K]."""
    image.requires_grad_()
    certainty = model(image, kept).log_softmax(dim=1).amax(dim=1).sum()
    (gradient,) = torch.autograd.grad(certainty, image)
    return take_patches(gradient.abs(), kept, model.grid).sum(dim=2)


# %%
for score in ("cls_attention", saliency, "random"):
    stopping = smi.Stopping(at=(10, 20), drop=0.4, score=score)
    images = smi.invert(model, count=16, iterations=40, stopping=stopping, seed=0)
    loss = images.made["history"]["loss"][-1]
    print(
        f"{images.made['score']}: loss {loss:.3f} with {images.kept.shape[1]} of {images.grid.patches} patches"
    )

# %% [markdown]
# A name of its own in `smi.SCORES` makes it one that grids of the benchmark can name; `images` shows what stayed in.

# %%
images  # noqa: B018
