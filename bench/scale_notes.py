"""What the scales of the grids are, in words: for tables, figures and reports. A scale of one's own needs no entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.grid import PAPER_SCALE


@dataclass(frozen=True)
class Words:
    """subject: what is inverted, and its data. shows: what the scale is for. quantization, transfer: how to read the
    tables of these experiments, with {pictures} (of test), {step} (points that one of them is worth) and {error}
    (standard error of full precision's top-1, in points)."""

    subject: str
    shows: str
    quantization: str = ""
    transfer: str = ""


CONTROLS = """\
The controls belong to every reading: they show what feeding few patches does by itself, whatever was optimised and
however the patches were chosen."""

_CIFAR_SHOWS = (
    "The paper's claims can be tested on it; its figures, which are of DeiT on ImageNet, can be neither confirmed nor "
    "refuted."
)

_CIFAR_QUANTIZATION = f"""\
What this scale can and cannot show: {{pictures}} test pictures, so one picture is {{step:.2f}} points and the standard
error of full precision's top-1 is {{error:.2f}}; all rows are scored on the same pictures, so their differences are
surer than that. W4/A8 and W8/A8 are the paper's bit-widths; W4/A4 and W8/A4 are ours, not the paper's, and were in the
grid before any figure was known. The paper has no figures for these models.
{CONTROLS}"""

_CIFAR_TRANSFER = """\
The students learn as a whole, from fresh weights or after they have learnt half of the classes (`half_classes`: from
that half's training pictures, the same weights for all rows); the paper's train a linear head on a pretrained
backbone. One of the {pictures} test pictures is {step:.2f} points."""

SCALES: dict[str, Words] = {
    "digits": Words(
        "a micro ViT on scikit-learn's digits",
        "This is the embedded scale: a micro ViT on scikit-learn's digits, made on any machine in minutes. Same code, "
        "same grids, same tables as the paper's scale, other model and data. It shows that the method and the whole "
        "pipeline work; it neither confirms nor refutes the paper's figures, which are of DeiT on ImageNet and CIFAR. "
        "Pictures at this scale are texture, not readable digits.",
        f"""\
What this scale can and cannot show: {{pictures}} test pictures, so one picture is {{step:.2f}} points and the standard
error of full precision's top-1 is {{error:.1f}}: top-1 does not tell calibration sources apart here, noise and real
images included, and a difference of that size says nothing about which method is better. The relative logit error does
move. Bit-widths are the paper's, not chosen by what the table looks like. The paper has no figures for this model.
{CONTROLS}""",
        """\
The students here start from fresh weights and learn as a whole; the paper's train a linear head on a pretrained
backbone. One of the {pictures} test pictures is {step:.2f} points. Images are rolled at random by up to an eighth of
their sides, each on its own, in place of the mirroring that digits do not bear.""",
    ),
    "cifar": Words(
        "small ViTs, CPU setting, on CIFAR-10",
        "This is the middle scale: natural images, all 10,000 test pictures, two small ViTs (patch 4, width 96, depth "
        "4) trained here from scratch in about an hour of one CPU core each. " + _CIFAR_SHOWS,
        _CIFAR_QUANTIZATION,
        _CIFAR_TRANSFER,
    ),
    "cifar_gpu": Words(
        "ViTs, GPU setting, on CIFAR-10",
        "This is the middle scale in its setting for a GPU: natural images, all 10,000 test pictures, two ViTs (patch "
        "4, width 192, depth 9) trained here from scratch. " + _CIFAR_SHOWS,
        _CIFAR_QUANTIZATION,
        _CIFAR_TRANSFER,
    ),
    PAPER_SCALE: Words(
        "DeiT/16 on ImageNet",
        "This is the paper's scale: its models, its data, its settings, beside its own figures.",
    ),
}


def words(scale: str) -> Words:
    """What is known of a scale; of one that is not ours, that it is not the paper's."""
    return SCALES.get(scale, Words("models and data of its own", "Not the scale of the paper."))


def subject(scale: str, records: Iterable[Mapping[str, Any]] = ()) -> str:
    """What is inverted and its data, with the form of the data where its records say that it is not the original."""
    text = words(scale).subject
    forms = {
        form
        for record in records
        for key in ("test", "train")
        if isinstance(named := record.get("settings", {}).get(key), dict) and (form := named.get("form"))
    }
    return f"{text} as {' and '.join(sorted(forms))}" if forms else text


def line(scale: str, records: Iterable[Mapping[str, Any]] = ()) -> str:
    """`Scale: digits (...; not the paper's models or data)`."""
    other = "" if scale == PAPER_SCALE else "; not the paper's models or data"
    return f"Scale: {scale} ({subject(scale, records)}{other})"
