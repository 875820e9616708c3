"""Fixtures that several rooms of the tests share. Models are tiny: behaviour does not depend on their size."""

import signal

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

# Whoever starts the tests in the background (nohup, cron, a script's `&`) hands down an ignored SIGINT, and every
# process that the tests start would be deaf to Ctrl-C. A handler is not inherited: they begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and parallel workers share the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_vit():
    """A function that makes a small ViT with random weights: 3 x 16 x 16 pixels, 16 patches, 5 classes by default."""

    def make(seed: int = 0, **overrides) -> VisionTransformer:
        settings = {
            "img_size": 16,
            "patch_size": 4,
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
            "num_classes": 5,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return VisionTransformer(**{**settings, **overrides}).eval()

    return make
