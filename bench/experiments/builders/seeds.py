"""Which seeds stand for which: those of a pool's sets, and those of teachers that have their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import models

if TYPE_CHECKING:
    from bench.experiments.builders.common import TaskBuilder

SET_STRIDE = 10_000  # between the seeds of two sets of one pool; seeds of a grid must stay below it
TEACHER_STRIDE = 1_000  # between those of two teachers, where each has its own


def of_cell(builder: TaskBuilder, model: str, seed: int) -> int:
    """The seed of images and students that a cell's seed (or that of one of its sets) stands for: itself, or, with
    `settings: seeds: per_teacher`, seed + 1000 x teacher, so that teachers average seeds out. `name@k` is teacher k; a
    model that is not one of several is teacher 0. BenchError where the seeds of two would meet."""
    if builder.settings.seeds == "shared":
        return seed
    if seed % SET_STRIDE >= TEACHER_STRIDE:
        message = f"{seed} is too great with seeds: per_teacher"
        place = (*builder.here, "axes", "seed")
        raise builder.grid.error(place, message, [f"whole numbers below {TEACHER_STRIDE}"])
    teacher, room = models.split_seed(model)[1] or 0, SET_STRIDE // TEACHER_STRIDE
    if teacher >= room:
        message = f"{model}: seeds: per_teacher has room for the teachers 0 to {room - 1}"
        raise builder.grid.error((*builder.here, "axes", "model"), message)
    return seed + TEACHER_STRIDE * teacher
