"""Named quantizers: where activations are quantized, over which range, on which levels, and how weights are.

Add one by adding an entry to QUANTIZERS, or hand `smi.quantize` a `Quantizer` of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from smi.checks import is_number
from smi.errors import InvalidSetting
from smi.quantization.placement import PLACEMENTS, PLACES
from smi.quantization.ranges import RANGES, range_of
from smi.quantizers import GRIDS, WEIGHTS, RangeOf, check_bits, check_choice

SOFTMAX: Mapping[str, str] = {
    "uniform": "as any other place",
    "log_sqrt2": "on a grid of powers of sqrt 2 (RepQ-ViT)",
}


@dataclass(frozen=True)
class Quantizer:
    """How a ViT is quantized; the bit-widths are given apart.

    placement: a name of smi.quantization.PLACEMENTS, or the places themselves (smi.quantization.PLACES).
    range: "minmax", "percentile" (one p in `percentiles`), or "least_error" over several percentiles or, without any,
    over the shrunk min-max (smi.quantization.RANGES).
    grid: where zero lies and how values are rounded (smi.quantizers.GRIDS).
    weights: "symmetric", "asymmetric" (both per output channel) or "floor" (smi.quantizers.WEIGHTS).
    softmax: the levels of the softmax output, where it is quantized: "uniform" or "log_sqrt2".
    sequential: weights are quantized first, and each place is calibrated on what the quantized ones before it give;
    else all ranges are taken in full precision. Takes all images in one batch.
    reparameterise: the inputs of qkv and fc1 are calibrated per channel, then norm1 and norm2 and these layers are
    rescaled, exactly in full precision, so that one range serves all channels (RepQ-ViT).
    image_bits: of the image, where they are not those of the other activations.
    """

    name: str
    placement: str | tuple[str, ...] = "inputs"
    range: Literal["minmax", "percentile", "least_error"] = "minmax"
    percentiles: tuple[float, ...] = ()
    grid: Literal["clamped_zero", "floor", "zero_included", "free_zero"] = "zero_included"
    weights: Literal["symmetric", "asymmetric", "floor"] = "symmetric"
    softmax: Literal["uniform", "log_sqrt2"] = "uniform"
    sequential: bool = False
    reparameterise: bool = False
    image_bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("placement", "percentiles"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(value))  # the dataclass is frozen
            elif name == "percentiles":
                object.__setattr__(self, name, (value,))
        for name, allowed in {"range": RANGES, "grid": GRIDS, "weights": WEIGHTS, "softmax": SOFTMAX}.items():
            check_choice(f"{name} of quantizer {self.name}", getattr(self, name), allowed)
        if isinstance(self.placement, tuple):
            for place in self.placement:
                if place not in PLACES:
                    self._refuse("placement", f"places of {', '.join(PLACES)}")
        elif self.placement not in PLACEMENTS:
            self._refuse("placement", f"{', '.join(PLACEMENTS)}, or a tuple of places")
        wanted = {"minmax": "none with range 'minmax'", "percentile": "exactly one with range 'percentile'"}
        if not all(is_number(p) and 0.5 < p <= 1 for p in self.percentiles):
            self._refuse("percentiles", "numbers above .5 and up to 1")
        if self.range in wanted and len(self.percentiles) != (self.range == "percentile"):
            self._refuse("percentiles", wanted[self.range])
        for name in ("sequential", "reparameterise"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "true or false")
        if self.reparameterise and not {"norm1_out", "norm2_out"} <= set(self.places):
            self._refuse("placement", "one with norm1_out and norm2_out, which reparameterise=True rescales")
        if self.reparameterise and self.grid != "free_zero":
            self._refuse("grid", "free_zero with reparameterise=True, whose zero points are no whole numbers")
        if self.image_bits is not None:
            check_bits(f"image_bits of quantizer {self.name}", self.image_bits)

    def _refuse(self, name: str, allowed: str) -> None:
        raise InvalidSetting(f"quantizer {self.name}: {name} is {getattr(self, name)!r}; allowed: {allowed}")

    @property
    def places(self) -> tuple[str, ...]:
        """The places whose activations are quantized."""
        return PLACEMENTS[self.placement] if isinstance(self.placement, str) else self.placement

    @property
    def range_of(self) -> RangeOf | None:
        """The function that chooses a range; None for min-max."""
        return range_of(self.range, self.percentiles)

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal quantizer."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Quantizer:
        """The quantizer that `to_json` described; InvalidSetting for unknown or missing fields."""
        if unknown := sorted(set(values) - _FIELDS):
            raise InvalidSetting(
                f"quantizer: unknown setting {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}"
            )
        try:
            return cls(**values)
        except TypeError as cause:
            raise InvalidSetting(f"quantizer: {cause}") from cause


_FIELDS = frozenset(field.name for field in fields(Quantizer))

QUANTIZERS: dict[str, Quantizer] = {
    # PSAQ-ViT and SMI: every place, min-max.
    "psaq": Quantizer("psaq", placement="psaq", grid="clamped_zero"),
    # The formula of the paper's slides, at the same places.
    "slides": Quantizer("slides", placement="psaq", grid="floor", weights="floor"),
    # What integer matrix products need, and no more.
    "minmax_inputs": Quantizer("minmax_inputs"),
    "percentile_inputs": Quantizer("percentile_inputs", range="percentile", percentiles=(0.999,)),
    "mse_inputs": Quantizer("mse_inputs", range="least_error"),
    # RepQ-ViT, Li et al., ICCV 2023.
    "repq": Quantizer(
        "repq",
        placement="operands",
        range="least_error",
        percentiles=(0.999, 0.9999, 0.99999),
        grid="free_zero",
        weights="asymmetric",
        softmax="log_sqrt2",
        sequential=True,
        reparameterise=True,
        image_bits=8,
    ),
}


def quantizer(name: str | Quantizer, /, **overrides: Any) -> Quantizer:
    """The named quantizer with some fields replaced, e.g. `quantizer("percentile_inputs", percentiles=0.9999)`.

    Raises InvalidSetting for an unknown name, field or value.
    """
    if not isinstance(name, Quantizer):
        if not isinstance(name, str) or name not in QUANTIZERS:
            raise InvalidSetting(
                f"unknown quantizer {name!r}; allowed: {', '.join(QUANTIZERS)}, or a smi.Quantizer"
            )
        name = QUANTIZERS[name]
    if unknown := sorted(set(overrides) - _FIELDS):
        raise InvalidSetting(
            f"quantizer {name.name}: unknown setting {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}"
        )
    return replace(name, **overrides)
