"""How long the stages of an inversion take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smi.device import synchronise

if TYPE_CHECKING:
    from smi.loop import Batch


class Clock:
    """Seconds of each stage (the iterations between two stops), the device's queue emptied at both ends."""

    def __init__(self, batch: Batch, patches: int) -> None:
        self.batch, self.patches = batch, patches
        self._open()

    def _open(self) -> None:
        synchronise(self.batch.image.device)
        self.first, self.began = self.batch.iteration, time.perf_counter()
        self.kept = self.patches if self.batch.kept is None else self.batch.kept.shape[1]

    def stop(self) -> None:
        """Book what has passed; pieces of one stage (before and after a resumption) are added up."""
        synchronise(self.batch.image.device)
        seconds, iterations = time.perf_counter() - self.began, self.batch.iteration - self.first
        stages = self.batch.stages
        if stages and stages[-1]["patches"] == self.kept:
            stages[-1]["iterations"] += iterations
            stages[-1]["seconds"] += seconds
        elif iterations:
            stages.append({"patches": self.kept, "iterations": iterations, "seconds": seconds})

    def restart(self) -> None:
        self.stop()
        self._open()
