"""The axis `quantizer` of a grid: whose tasks it changes, and what it refuses."""

from pathlib import Path

import pytest
import yaml

from bench.engine.task import Sources
from bench.errors import BenchError
from bench.experiments.quantization.plan import build
from bench.grid import load

REFERENCE = Path(__file__).parents[3] / "golden" / "reference.yaml"


def cells(tmp_path, *quantizers):
    grid = yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))
    if quantizers:
        grid["scales"]["digits"]["axes"]["quantizer"] = list(quantizers)
    path = tmp_path / "reference.yaml"
    path.write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")
    return build(load(path), "digits", Sources())


def by_quantizer(tmp_path, *quantizers):
    return {
        (c.cell["method"], c.cell["bits"], c.cell["seed"], c.cell.get("quantizer", "psaq")): c.tasks
        for c in cells(tmp_path, *quantizers)
        if "quantize" in c.tasks
    }


def test_the_default_is_no_setting_and_others_share_teacher_and_images(tmp_path):
    plain, named = by_quantizer(tmp_path), by_quantizer(tmp_path, "psaq", "repq", "slides")
    for (*where, quantizer), tasks in named.items():
        default = plain[(*where, "psaq")]
        assert tasks["images"].key == default["images"].key
        added = {"psaq": {}, "repq": {"quantizer": "repq"}, "slides": {"formula": "slides"}}[quantizer]
        assert tasks["quantize"].settings == {**default["quantize"].settings, **added}
        assert (tasks["quantize"].key == default["quantize"].key) is (quantizer == "psaq")
    assert len(named) == 3 * len(plain)


def test_unknown_quantizers_are_refused_at_their_place(tmp_path):
    with pytest.raises(BenchError, match="unknown quantizer 'repq4'; allowed: .*repq") as refusal:
        cells(tmp_path, "psaq", "repq4")
    assert "\n" not in str(refusal.value)
