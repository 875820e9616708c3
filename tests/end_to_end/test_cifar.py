"""The CIFAR-10 scale end to end on pictures made here: teachers, quantization, transfer, and the page of claims."""

from __future__ import annotations

import pytest
from small_grid import SmallGrid
from vision_data import folders

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def pictures(tmp_path):
    return folders(tmp_path / "data", classes=CLASSES, each=10, size=32)


def small(name, pictures, methods):
    """A grid at the CIFAR-10 scale in small, its store and results shared with the test's other grid."""

    def change(scales):
        scale = scales["cifar"]
        settings = scale["settings"]
        settings["teacher"] |= {"epochs": 1, "batch_size": 30}
        settings["recipes"]["deepinversion"]["iterations"] = 6
        settings["schedules"]["sparse77"]["at"] = [1, 2, 3, 4]
        scale["axes"] |= {"method": methods, "seed": [0, 1]}
        if name == "kd":
            settings["pools"]["one_round"] |= {"images": 4, "set": 2, "steps": 4, "batch_size": 2}
            settings["evaluate_every"] = 2
            settings["students"]["half_classes"]["training"]["epochs"] = 1

    grid = SmallGrid(name, pictures.parent, change)
    grid.options = ("--scale", "cifar", "--data", f"cifar10={pictures}")
    return grid


@pytest.mark.slow
def test_both_tables_and_the_claims_are_made_from_pictures_that_name_their_form(pictures):
    pair = ["deepinversion_dense", "deepinversion_sparse"]
    quantization = small("table3", pictures, ["original", "gaussian_noise", *pair])
    assert quantization() == 0
    text = quantization.table("cifar", "table3")
    assert "JPEG copies" in text and "failed" not in text
    for model in ("cifar_vit_small@0", "cifar_vit_small@1"):
        assert f"| {model} " in text
    for bits in ("W4/A8", "W8/A8", "W4/A4", "W8/A4"):
        assert f"{bits} top-1" in text
    teachers = quantization.records("teacher")
    assert sorted(record["settings"]["seed"] for record in teachers) == [0, 1]

    transfer = small("kd", pictures, ["teacher", *pair])
    assert transfer() == 0
    text = transfer.table("cifar", "table4")
    assert "student `fresh`" in text and "student `half_classes`" in text and "not run" not in text
    students = [r for r in transfer.records("teacher") if "classes" in r["settings"]["train"]]
    assert len(students) == 1 and len(transfer.records("teacher")) == 3, (
        "teachers are those of the other table"
    )
    untaught = [r["metrics"]["curve"][0]["top1"] for r in transfer.records("transfer")]
    assert len(untaught) == 16 and all(0 <= top1 <= 100 for top1 in untaught)

    assert "(cifar/README.md)" in (transfer.results / "README.md").read_text(encoding="utf-8")
    claims = transfer.table("cifar", "README")
    assert "### Sparse inversion calibrates as well as dense\n" in claims and "JPEG copies" in claims
    psaq = claims.partition("### The same of PSAQ-ViT\n")[2].partition("\n#")[0]
    assert "not run" in psaq
