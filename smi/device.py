"""Which device is meant, and when it has done its work."""

from __future__ import annotations

import torch


def resolved(device: str | torch.device) -> torch.device:
    """The device with its index: "cuda" is the current one, which no tensor calls so."""
    return torch.empty(0, device=device).device


def synchronise(device: str | torch.device) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
