"""What the examples share: scikit-learn's handwritten digits, which need no download, and a short training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

MEAN, STD = 0.3, 0.35  # of the pixels, about
torch.set_num_threads(1)  # models this small gain nothing from more, and lose much where cores are shared


def pictures() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(training pictures [N, 3, 16, 16] in [0, 1], their digits [N], test pictures, their digits)."""
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    pixels = F.interpolate(pixels, size=16, mode="bilinear").repeat(1, 3, 1, 1)
    digits = torch.tensor(data.target)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return pixels[train], digits[train], pixels[test], digits[test]


def train(model: nn.Module, epochs: int = 15, seed: int = 0) -> nn.Module:
    """The model, trained on the digits, in evaluation mode."""
    pixels, digits, _, _ = pictures()
    steps = epochs * (len(pixels) // 100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels), generator=generator).split(100)[: len(pixels) // 100]:
            loss = F.cross_entropy(logits(model, pixels[batch]), digits[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits [B, 10] of pictures in [0, 1]."""
    out = model((pixels - MEAN) / STD)
    return out if isinstance(out, Tensor) else out.logits


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Top-1 in %, on the test pictures."""
    _, _, pixels, digits = pictures()
    return 100 * float((logits(model, pixels).argmax(1) == digits).float().mean())
