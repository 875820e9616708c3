"""What a cost measurement says: ratios, rates and shares of a record, and the goals that they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import smi
from bench import models
from bench.publish.parts import NOT_RUN, NOTHING, figure, markdown, model_title, percent

Record = Mapping[str, Any]
EAGER = "eager"
PRECISIONS = ("fp32", "bf16")  # that have goals
FINISHED = "finished_images_per_second"  # of a whole run, in the metrics
RESOLUTION = 224  # of the paper; others are said

GOAL_NOTES = """\
"Multiplications" is the ratio of the two steps' exact multiply-accumulates: what would be measured if both ran at the
same rate. Where it lies below a goal, frozen weights and fewer tokens alone do not reach that goal in one precision.
A GPU's goals are therefore of a precision. The published way runs in fp32, IEEE's here, of which an H100 multiplies
some 50 TFLOP/s, and 790 in bf16: in fp32 no more can be asked for than the multiplications (7 for sparse Base, less
what is bound by memory), in bf16 six times as much, as what is bound by memory gains half of its bytes and its
launches."""


@dataclass(frozen=True)
class Found:
    """A measured value, and what equal speeds would make it (None where that says nothing)."""

    value: float
    multiplications: float | None = None


# Of one measurement, and all that were made on its device.
Measured = Callable[[Record, Sequence[Record]], Found | None]


@dataclass(frozen=True)
class Goal:
    """A figure of some measurements, and what it should be at least; None where there is no goal on such a device.

    method, model (None: every one): of which measurements. on_gpu: by precision. batch: of which of them on a GPU.
    percent: show it so.
    """

    what: str
    method: str
    measured: Measured
    on_cpu: float | None = None
    on_gpu: Mapping[str, float] = field(default_factory=dict)
    model: str | None = None
    batch: int = 128
    percent: bool = False

    def concerns(self, record: Record) -> bool:
        cell = record["cell"]
        fits = record["device_type"] != "gpu" or cell["batch"] == self.batch
        return cell["method"] == self.method and self.model in (None, cell["model"]) and fits

    def wanted(self, gpu: bool, precision: str) -> float | None:
        """The least value that reaches the goal on such a device; None where there is no goal."""
        return self.on_gpu.get(precision) if gpu else self.on_cpu

    def told(self, gpu: bool) -> str:
        """The goal where nothing was measured: that of each precision."""
        found = {p: value for p in PRECISIONS if (value := self.wanted(gpu, p)) is not None}
        if not gpu:
            return NOTHING if self.on_cpu is None else f">= {self.shown(self.on_cpu)}"
        return "; ".join(f">= {self.shown(value)} {p}" for p, value in found.items()) or NOTHING

    def shown(self, value: float) -> str:
        return percent(value, 0) if self.percent else f"{value:.2f}"


def ratio(record: Record, other: str) -> float | None:
    """Median seconds of another engine over ours; None where it was not measured beside it."""
    engines = record["metrics"]["engines"]
    return engines[other]["median"] / engines["smi"]["median"] if other in engines else None


def _faster_than(other: str) -> Measured:
    def measured(record: Record, _: Sequence[Record]) -> Found | None:
        value = ratio(record, other)
        return None if value is None else Found(value, _multiplications(record, other))

    return measured


def _of_matmul(record: Record, _: Sequence[Record]) -> Found | None:
    """Multiply-accumulates a second of an iteration as a share of a plain product's on the same device."""
    share = share_of_matmul(record)
    return None if share is None else Found(share)


def _less_memory(record: Record, _: Sequence[Record]) -> Found | None:
    published, ours = (held(record, engine) for engine in ("reference", "smi"))
    return None if published is None else Found(published / ours)


def _more_images_than(method: str) -> Measured:
    """Finished images a second of a whole run over those of another method in the same place; at equal speeds, the
    ratio of the FLOPs of a finished image."""

    def measured(record: Record, records: Sequence[Record]) -> Found | None:
        place = {**record["cell"], "method": method}
        other = next((one for one in records if one["cell"] == place), None)
        if other is None or not all(FINISHED in one["metrics"] for one in (record, other)):
            return None
        value = record["metrics"][FINISHED] / other["metrics"][FINISHED]
        return Found(value, _gflops_of_finished(other) / _gflops_of_finished(record))

    return measured


def _gflops_of_finished(record: Record) -> float:
    parts = (record["settings"]["stopping"] or {}).get("rebirth", 1)
    return record["metrics"]["paper_gflops_run_average"] / parts


def _multiplications(record: Record, other: str) -> float | None:
    """Multiply-accumulates of the other engine's step over ours: what the ratio would be at equal speed of both.

    Ours: frozen weights, kept patches embedded alone, and patches of the last block as keys and values only. None
    where the loss costs more than the model (PSAQ-ViT's patch similarity).
    """
    if record["settings"]["recipe"]["name"] != "deepinversion":
        return None
    model, kept = models.outline(record["settings"]["model"]), record["metrics"]["stages"][-1]["patches"]
    ours = own_gmacs(record)
    if other == "smi_dense":
        theirs = smi.flops.step_gmacs(model) - _spared(model, None)
    else:
        all_patches = other.endswith("_dense")
        theirs = smi.flops.step_gmacs(model, None if all_patches else kept, weight_gradients=True)
    return theirs / ours


def own_gmacs(record: Record) -> float:
    """GMACs of our step on one image. A loss that watches the blocks (PSAQ-ViT's) has the last one run whole."""
    model, kept = models.outline(record["settings"]["model"]), record["metrics"]["stages"][-1]["patches"]
    whole = smi.flops.step_gmacs(model, kept, embed_kept_only=True)
    watched = record["settings"]["recipe"]["name"] != "deepinversion"
    return whole if watched else whole - _spared(model, kept)


def _spared(model: Any, kept: int | None) -> float:
    """GMACs, forward and backward, that patches of the last block do not cost as keys and values alone."""
    return 2 * 10 * (kept or model.patch_embed.num_patches) * model.embed_dim**2 / 1e9


def rate(record: Record) -> float:
    """Multiply-accumulates (G) of our step that an iteration makes in a second."""
    return own_gmacs(record) * record["metrics"]["engines"]["smi"]["images_per_second"]


def share_of_matmul(record: Record) -> float | None:
    plain = record["metrics"].get("matmul_gmacs_per_second")
    return None if plain is None else rate(record) / plain


def held(record: Record, engine: str) -> float | None:
    """MiB: the peak on a GPU, what is saved for the backward pass on a CPU."""
    memory = record["metrics"]["engines"].get(engine, {}).get("memory", {})
    return memory.get("gpu_mib", memory.get("saved_mib"))


def where(cell: Mapping[str, Any]) -> dict[str, str]:
    side = cell.get("resolution", RESOLUTION)
    return {
        "model": model_title(cell["model"]) + ("" if side == RESOLUTION else f" at {side}x{side}"),
        "batch": str(cell["batch"]),
        "precision": cell["precision"],
        "engine": cell.get("engine", EAGER),
    }


def on_gpu(records: Sequence[Record]) -> bool:
    return records[0]["device_type"] == "gpu"


SPARSE, DENSE, PSAQ = "deepinversion_sparse", "deepinversion_dense", "psaq_dense"
REBIRTHS = {2: None, 4: 1.5, 7: None}  # parts -> goal
GOALS = (
    Goal("published dense over our dense", DENSE, _faster_than("reference"), on_cpu=1.5),
    Goal(
        *("published sparse over our sparse, last stage", SPARSE, _faster_than("reference")),
        on_cpu=2.0,
        on_gpu={"fp32": 1.4, "bf16": 10.0},
    ),
    Goal(
        *("published dense over our sparse Base, last stage", SPARSE, _faster_than("reference_dense")),
        on_cpu=6.0,
        on_gpu={"fp32": 6.0, "bf16": 40.0},
        model="deit_base_patch16_224",
    ),
    Goal(
        *("published dense over our sparse Tiny, last stage", SPARSE, _faster_than("reference_dense")),
        on_cpu=6.0,
        on_gpu={"fp32": 6.0, "bf16": 30.0},
        model="deit_tiny_patch16_224",
    ),
    Goal("our dense over our sparse, last stage", SPARSE, _faster_than("smi_dense")),
    Goal(
        "our dense Base over a plain matmul, in GMAC/s",
        DENSE,
        _of_matmul,
        on_gpu={"bf16": 0.5},
        model="deit_base_patch16_224",
        percent=True,
    ),
    Goal("PSAQ-ViT as published over ours", PSAQ, _faster_than("reference"), on_gpu={"bf16": 10.0}, batch=32),
    Goal("memory: PSAQ-ViT as published over ours", PSAQ, _less_memory, batch=32),
    Goal("memory: published dense over our dense", DENSE, _less_memory),
    Goal("memory: published sparse over our sparse, last stage", SPARSE, _less_memory),
    *(
        Goal(
            f"images/s over a run, rebirth of {parts} parts over sparse at 77%",
            f"rebirth{parts}",
            _more_images_than(SPARSE),
            on_cpu=goal,
            on_gpu={} if goal is None else {"fp32": goal, "bf16": goal},
        )
        for parts, goal in REBIRTHS.items()
    ),
)


def goals(records: Sequence[Record], gpu: bool) -> str:
    """A table with one row per goal and measurement; what nothing was measured for has a row "not run"."""
    rows = []
    for goal in GOALS:
        for record in records:
            if goal.concerns(record) and (found := goal.measured(record, records)) is not None:
                wanted = goal.wanted(gpu, record["cell"]["precision"])
                rows.append(_row(goal, where(record["cell"]), found, wanted))
        if not any(row["what"] == goal.what for row in rows):
            nowhere = dict.fromkeys(("model", "batch", "precision", "engine"), NOTHING)
            rows.append(_row(goal, nowhere, None, None) | {"goal": goal.told(gpu)})
    return markdown(rows)


def _row(goal: Goal, place: Mapping[str, str], found: Found | None, wanted: float | None) -> dict[str, str]:
    if found is None:
        reached = NOT_RUN
    else:
        reached = NOTHING if wanted is None else "yes" if found.value >= wanted else "no"
    return {
        "what": goal.what,
        **place,
        "measured": NOT_RUN if found is None else goal.shown(found.value),
        "multiplications": NOTHING if found is None else figure(found.multiplications),
        "goal": NOTHING if wanted is None else f">= {goal.shown(wanted)}",
        "reached": reached,
    }
