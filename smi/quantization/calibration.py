"""smi.quantize: a quantized copy of a ViT, calibrated on images through their kept patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from smi import published
from smi.checks import is_whole
from smi.device import float32_arithmetic, outside_callers_modes
from smi.errors import InvalidImages, InvalidSetting
from smi.foreign.convert import model_given
from smi.images import SyntheticImages
from smi.progress import Progress, shown
from smi.quantization import repq
from smi.quantization.model import QuantizedViT
from smi.quantization.recipes import Quantizer
from smi.quantization.recipes import quantizer as resolved
from smi.vit import TokenModel, normalisation

Batch = tuple[Tensor, Tensor | None]  # images [B, C, H, W], normalised; kept patches [B, K]


@outside_callers_modes()
@torch.inference_mode(False)
@torch.no_grad()
def quantize(
    model: nn.Module,
    images: SyntheticImages,
    weight_bits: int = 4,
    activation_bits: int = 8,
    *,
    quantizer: str | Quantizer = "psaq",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    deviations: Iterable[str] = (),
    progress: bool | Progress = True,
) -> QuantizedViT:
    """A quantized copy of a ViT, calibrated on images through their kept patches; the model is not changed.

    model: of timm, or what `smi.to_timm` converts. weight_bits, activation_bits: 2 to 8. quantizer: a name of
    smi.QUANTIZERS or a smi.Quantizer.
    batch_size: images per calibration pass (all at once by default; ranges do not depend on it beyond rounding).
    device: the model's own by default.
    deviations: names of smi.published.OF_CALIBRATION: where to follow the published code instead of the paper.
    progress: True shows a bar (one line at the end where nobody watches), False nothing; a callable is called with
    (images seen, images in all, no figures).
    Ranges are taken in full precision at every place, then frozen, then weights and activations are quantized; but for
    sequential quantizers, where weights come first and each place sees quantized inputs. A backbone (num_classes=0)
    gives quantized features, a distilled model the mean of its two heads.
    Raises InvalidSetting, InvalidImages, UnsupportedModel.
    """
    model = model_given(model)
    chosen, recipe = published.check(deviations, published.OF_CALIBRATION), resolved(quantizer)

    def build(of: nn.Module) -> QuantizedViT:
        return QuantizedViT(of, weight_bits, activation_bits, recipe, "whole_stem" in chosen).to(device)

    device = torch.device(device) if device is not None else _device(model)
    quantized = build(model)
    check_fit(images, quantized.tokens)
    size = len(images) if batch_size is None else batch_size
    if not is_whole(size) or size < 1:
        raise InvalidSetting(f"batch_size is {batch_size!r}; allowed: a whole number >= 1")
    if recipe.sequential and size < len(images):
        raise InvalidSetting(
            f"batch_size is {size}; quantizer {recipe.name} is sequential and calibrates on all {len(images)} images "
            "at once"
        )
    mean, std = (t.to(device) for t in normalisation(model))

    def batches(tell: Progress | None) -> Iterator[Batch]:
        for start in range(0, len(images), size):
            part = images.select(slice(start, start + size))
            kept = None if part.kept is None else part.kept.to(device)
            pixels = part.masked() if "keep_zero" in chosen else part.pixels
            yield published.normalise(pixels.to(device), mean, std, "keep_zero" in chosen), kept
            if tell is not None:
                tell(min(start + size, len(images)), len(images), {})

    with (
        float32_arithmetic(device),
        shown(progress, f"quantize to W{weight_bits}/A{activation_bits}", "image") as tell,
    ):
        if recipe.reparameterise:
            quantized = _calibrate_reparameterised(model, quantized, build, batches(tell))
        else:
            _calibrate(quantized, batches(tell))
    quantized.calibrated_on = _told(images, quantized.tokens.num_patches, chosen)
    return quantized


def _told(images: SyntheticImages, patches: int, deviations: Iterable[str]) -> dict[str, Any]:
    """Where the calibration came from, in JSON values: the images, and how they were made but for its curves.

    patches: of the model; pictures of one's own know no patch grid.
    """
    made = {
        name: value for name, value in images.made.items() if name not in ("history", "snapshots", "stages")
    }
    kept = patches if images.kept is None else images.kept.shape[1]
    return {
        "images": len(images),
        "patches_of_each": [kept, patches],
        "deviations": sorted(deviations),
        "made": made,
    }


def _calibrate(quantized: QuantizedViT, batches: Iterable[Batch]) -> None:
    if quantized.recipe.sequential:
        quantized.quantize_weights()
    with quantized.calibrating():
        for image, kept in batches:
            quantized(image, kept)
    quantized.freeze()
    if not quantized.recipe.sequential:
        quantized.quantize_weights()


def _calibrate_reparameterised(
    model: nn.Module,
    first: QuantizedViT,
    build: Callable[[nn.Module], QuantizedViT],
    batches: Iterable[Batch],
) -> QuantizedViT:
    """Calibrate per channel, rescale the model, and quantize its changed weights anew; other ranges stay."""
    repq.check_norms(model)
    repq.take_ranges_per_channel(first)
    _calibrate(first, batches)
    fits = {name: one.found for name, one in first.activation_quantizers()}
    model, whole = repq.reparameterised(model, fits)
    final = build(model)
    for name, one in final.activation_quantizers():
        one.set_fit(whole.get(name, fits[name]))
    final.quantize_weights()
    return final


def check_fit(images: SyntheticImages, model: TokenModel) -> None:
    """InvalidImages unless the images are as the model takes them: channels, height, width, patch grid; not empty."""
    expected = (model.channels, model.grid.height, model.grid.width)
    if not isinstance(images, SyntheticImages):
        kind = type(images).__name__
        raise InvalidImages(f"images are a {kind}; allowed: SyntheticImages, e.g. SyntheticImages.load(path)")
    if not len(images):
        raise InvalidImages("there are no images in the set: at least 1 is needed")
    if tuple(images.pixels.shape[1:]) != expected:
        raise InvalidImages(
            f"images are {list(images.pixels.shape[1:])}, the model takes {list(expected)} (C, H, W)"
        )
    if images.kept is not None and tuple(images.patch_size) != model.patch_size:
        raise InvalidImages(
            f"kept patches are of {images.patch_size} pixels, the model's of {model.patch_size}"
        )


def _device(model: nn.Module) -> torch.device:
    """The model's own."""
    first = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
