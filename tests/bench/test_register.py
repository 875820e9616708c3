"""Things from outside the project: what is registered works by name, keys hold its code, what is wrong is one line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import smi
from bench import datasets, experiments, register, sweep
from bench.engine import include
from bench.engine.executors.slurm import ledger
from bench.engine.plan import make_plan
from bench.engine.store import Store
from bench.engine.task import Sources, Task
from bench.engine.worker import run_task
from bench.errors import BenchError
from bench.grid import load
from smi import objectives

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it."""
    known = (
        *(smi.SCORES, smi.RECIPES, objectives.TERMS, objectives.NEEDS, datasets.DATASETS),
        experiments.EXPERIMENTS,
    )
    before = [dict(registry) for registry in known]
    yield
    for registry, entries in zip(known, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a module, of a name no other has, into a folder of its own; returns its path."""

    def write(text: str, folder: Path | None = None) -> Path:
        number = next(NUMBERS)
        path = (folder or tmp_path / f"mine{number}") / f"own_module_{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def grid_with(folder: Path, include_: list[str] | None = None, **method) -> Path:
    path = folder / "small.yaml"
    spec = {
        "name": "small",
        "title": "Small",
        "experiment": "quantization",
        "methods": {"own": {"title": "Own", **method}},
        "scales": {
            "digits": {
                "axes": {
                    "model": ["digits_vit"],
                    "dataset": ["digits"],
                    "method": ["own"],
                    "bits": ["W8/A8"],
                    "seed": [0],
                },
                "settings": {
                    "images": {"count": 2},
                    "schedules": {"half": {"at": [2], "drop": 0.5}},
                    "recipes": {"deepinversion": {"iterations": 4}},
                },
            }
        },
    }
    if include_:
        spec["include"] = include_
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def images_task(grid: Path, sources: Sources | None = None) -> Task:
    plan = make_plan(experiments.build(load(grid), "digits", sources or Sources()))
    return next(task for task in plan.tasks if task.kind == "images")


def said(capsys, *arguments: str) -> str:
    """The one line of an exit with code 2."""
    assert sweep.main([*arguments, "--dry-run"]) == sweep.BAD_INPUT
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_key_of_a_task_follows_the_code_it_uses_and_no_other(tmp_path, module):
    keys = {}
    for body in ("kept * 1.0", "kept * 2.0"):
        for helper in ("ONE = 1", "ONE = 2"):
            folder = tmp_path / f"mine{next(NUMBERS)}"
            folder.mkdir()
            needed = module(helper, folder)
            unused = module(f"# {helper}", folder)
            own = folder / "own_score.py"
            own.write_text(
                f"from bench import register\nimport {needed.stem}\n\n@register.score\n"
                f"def own_score(model, image, kept, generator):\n    return {body}\n"
            )
            name = f"own_score_{next(NUMBERS)}"
            own.rename(folder / f"{name}.py")
            include.load([folder])
            keys[body, helper] = include.code("score own_score")
            assert include.code(f"module {unused.stem}") != keys[body, helper]
            smi.SCORES.pop("own_score")
            include._things.pop("score own_score")
    assert len(set(keys.values())) == 4


def test_a_task_holds_the_hash_of_its_score_and_refuses_another(tmp_path, module):
    path = module(
        "from bench import register\n\n@register.score\n"
        "def held_score(model, image, kept, generator):\n    return kept * 1.0\n"
    )
    grid = grid_with(tmp_path, source="inversion", recipe="deepinversion", stopping="half")
    plain = images_task(grid)
    assert "code" not in plain.settings
    include.load([path.parent])
    assert images_task(grid).key == plain.key  # what is not used changes nothing
    own = images_task(
        grid_with(tmp_path, source="inversion", recipe="deepinversion", stopping="half", score="held_score")
    )
    assert own.settings["code"] == {"score held_score": include.code("score held_score")}
    include.check(own)
    with pytest.raises(BenchError, match="held_score.*not what was planned with"):
        include.check(replace(own, settings={**own.settings, "code": {"score held_score": "0" * 16}}))


def test_a_task_whose_code_is_not_here_is_a_record_and_no_crash(tmp_path):
    store = Store(tmp_path / "store")
    store.prepare()
    task = Task("images", {"code": {"score gone": "0" * 16}})
    outcome = run_task(store, task, sources=Sources(include=(tmp_path / "nowhere",)))
    assert outcome.status == "failed" and "nowhere" in outcome.detail


def test_folders_and_files_reach_slurm_jobs():
    sources = Sources(include=(Path("/a"),), files=(Path("/b"),), decode_cache=Path("/c"))
    packed = ledger.pack_sources(sources)
    submission = ledger.Submission(
        **{
            **dict.fromkeys(ledger.Submission.__dataclass_fields__),
            "sources": packed,
        }
    )
    assert submission.unpacked_sources() == sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch\n1 / 0\n", r"own_module_\d+\.py, line 2: ZeroDivisionError"),
        ("def broken(:\n", r"own_module_\d+\.py, line 1: SyntaxError"),
        ("raise SystemExit(3)\n", r"own_module_\d+\.py, line 1: SystemExit"),
        (
            "from bench import register\n@register.score\ndef random(model, image, kept, generator): ...\n",
            r"own_module_\d+\.py, line 2: the score 'random' is the project's own",
        ),
        (
            "from bench import register\nregister.recipe('x')\n",
            r"line 2: recipe: got a str; allowed: a smi\.Recipe",
        ),
        (
            "from bench import register\nregister.experiment('cost', build=1, table=2)\n",
            "the experiment 'cost' is the project's own",
        ),
        (
            "from bench import register\nregister.term('nonsense')(lambda step: 0)\n",
            "unknown need 'nonsense'",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line_with_its_place(
    tmp_path, module, capsys, text, expected
):
    folder = module(text).parent
    grid = grid_with(tmp_path, source="noise")
    line = said(capsys, "--grid", str(grid), "--include", str(folder), "--store", str(tmp_path / "s"))
    assert line.startswith("error: ") and re.search(expected, line), line


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path, capsys):
    grid = grid_with(tmp_path, source="noise")
    assert "no such folder" in said(capsys, "--grid", str(grid), "--include", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "no Python module" in said(capsys, "--grid", str(grid), "--include", str(tmp_path / "empty"))
    named = grid_with(tmp_path, include_=["missing"], source="noise")
    assert "small.yaml, line" in (line := said(capsys, "--grid", str(named))) and "missing" in line


def test_a_module_cannot_stand_in_for_another(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "colorsys.py").write_text("raise RuntimeError\n")
    grid = grid_with(tmp_path, source="noise")
    line = said(capsys, "--grid", str(grid), "--include", str(tmp_path / "mine"))
    assert "mine/colorsys.py: there is a module 'colorsys' already" in line


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"source": "os:system"}, "no included folder holds the module 'os'"),
        ({"source": "files"}, "needs `files`"),
        ({"source": "noise", "files": "."}, "only `source: files` takes files"),
        ({"source": "noise", "options": {"a": 1}}, "takes options"),
        ({"source": "files", "files": "nowhere"}, "holds no pictures"),
        ({"source": "pictures"}, "'files'"),
    ],
)
def test_a_senseless_source_is_refused_at_its_line(tmp_path, method, expected):
    grid = grid_with(tmp_path, **method)
    with pytest.raises(BenchError, match=r"small\.yaml, line \d+") as error:
        images_task(grid)
    assert expected in str(error.value)


def test_pictures_are_keyed_by_content_wherever_they_lie(tmp_path):
    keys = []
    for place, value in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        folder = tmp_path / place
        folder.mkdir()
        images = smi.SyntheticImages(
            torch.full((2, 1, 32, 32), value), torch.zeros(2, dtype=torch.int64), None, (4, 4)
        )
        images.save(folder / "images.safetensors")
        keys.append(images_task(grid_with(folder, source="files", files="images.safetensors")).key)
    assert keys[0] == keys[1] != keys[2]


def test_nothing_registers_outside_an_included_folder():
    with pytest.raises(BenchError, match="registered by no module"):
        register.score(lambda model, image, kept, generator: kept)


def test_a_score_that_returns_nonsense_is_named_with_its_file(module):
    path = module(
        "from bench import register\n\n@register.score\n"
        "def short_score(model, image, kept, generator):\n    return [1]\n"
    )
    include.load([path.parent])
    with pytest.raises(
        BenchError, match=rf"{path.name}: score short_score returned a list; allowed: a tensor"
    ):
        smi.SCORES["short_score"](None, None, torch.zeros(2, 3, dtype=torch.int64), None)
