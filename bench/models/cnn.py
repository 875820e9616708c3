"""A plain CNN for small pictures: a tutor whose logits our own ViTs may learn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainCNN(nn.Module):
    """Two 3x3 convolutions at each width, each with batch normalisation and ReLU, halved in between; the mean, a head.

    img_size: pixels a side. Pictures float [B, in_chans, img_size, img_size] -> logits [B, num_classes].
    """

    def __init__(self, img_size: int, in_chans: int, num_classes: int, widths: list[int]) -> None:
        super().__init__()
        self.img_size, self.in_chans, self.num_classes = img_size, in_chans, num_classes
        layers: list[nn.Module] = []
        width = in_chans
        for index, wider in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if index else []
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, wider, 3, padding=1, bias=False),
                    nn.BatchNorm2d(wider),
                    nn.ReLU(),
                ]
                width = wider
        self.features = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures).mean((2, 3)))


@torch.no_grad()
def initialise(model: PlainCNN, seed: int) -> None:
    """Convolutions by He's rule, the head by torch's own."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    bound = model.head.in_features**-0.5
    nn.init.uniform_(model.head.weight, -bound, bound, generator=generator)
    nn.init.zeros_(model.head.bias)
