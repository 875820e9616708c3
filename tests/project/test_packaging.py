"""`smi` is the library that others install: it needs torch, timm and safetensors, and knows nothing of `bench`."""

from __future__ import annotations

import ast
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# torchvision is timm's own requirement; smi uses it for picture grids.
ALLOWED = {"torch", "timm", "safetensors", "torchvision", "tqdm", "smi"} | set(sys.stdlib_module_names)
MODULES = {"markdown_it_py": "markdown_it", "pillow": "PIL", "scikit_learn": "sklearn"}
ONLY_FOR_BENCH = (
    *("bench", "fvcore", "iopath", "matplotlib", "pandas", "pydantic", "rich", "scipy"),
    *("sklearn", "submitit", "tabulate", "pytest", "hypothesis"),
)
USE_SMI_WITHOUT = """
import sys

for name in sys.argv[1].split(","):
    sys.modules[name] = None  # an import of it fails as if it were not installed
import smi
import torch
from timm.models.vision_transformer import VisionTransformer

torch.manual_seed(0)
model = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=5).eval()
images = smi.invert(model, count=2, iterations=4, stopping=smi.Stopping(at=(2,), drop=0.5), seed=0)
small = smi.quantize(model, images, weight_bits=4, activation_bits=8)
assert small(torch.rand(2, 3, 16, 16)).shape == (2, 5)
assert smi.flops.exact_gmacs(model) > 0
print("worked")
"""
REFUSE_WITHOUT = """
import sys

for name in ("torch", "timm", "pandas", "sklearn", "matplotlib"):
    sys.modules[name] = None
from bench.sweep import main

sys.exit(main(sys.argv[1:]))
"""


def imported_by(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", ["smi", "bench"])
def test_every_module_can_be_imported(package):
    """Those too that only a SLURM job or a worker starts."""
    folder = str(ROOT / package)
    names = {found.name for found in pkgutil.walk_packages([folder], f"{package}.")}
    assert len(names) > 15
    for name in names:
        importlib.import_module(name)


@pytest.mark.parametrize("path", sorted((ROOT / "smi").rglob("*.py")), ids=lambda path: path.name)
def test_smi_imports_no_more_than_it_declares(path):
    more = {"numpy", "onnx", "onnxruntime"} if "deployment" in path.parts else set()  # of the extra "onnx"
    more |= {"triton"} if path.name == "kernels.py" else set()  # torch brings it, or it is done without
    assert imported_by(path) <= ALLOWED | more


@pytest.mark.parametrize("path", sorted((ROOT / "bench").rglob("*.py")), ids=lambda path: path.name)
def test_bench_imports_no_more_than_it_declares(path):
    declared = {MODULES.get(name, name) for name in declared_by_bench()}
    assert imported_by(path) - set(sys.stdlib_module_names) <= declared | {"smi", "bench"}


def declared_by_bench() -> set[str]:
    """Names of the distributions that installing `.[bench]` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chosen = [*project["dependencies"], *project["optional-dependencies"]["bench"]]
    return {re.match(r"[\w-]+", line).group().replace("-", "_").lower() for line in chosen}


def test_smi_works_where_nothing_else_is_installed():
    command = [sys.executable, "-c", USE_SMI_WITHOUT, ",".join(ONLY_FOR_BENCH)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "worked", done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--grid", "nowhere.yaml"], "no such file"),
        (["--grid", "{grid}"], "unknown experiment 'quantisation'"),
        (["--grid", "experiments/smoke.yaml", "--scale", "huge"], "unknown scale 'huge'"),
        (["--grid", "experiments/smoke.yaml", "--data", "cifar10=nowhere"], "no folder"),
        (["--grid", "experiments/smoke.yaml", "--job", "2"], "unrecognized arguments"),
    ],
)
def test_what_is_refused_is_refused_before_anything_heavy_is_imported(options, words, tmp_path):
    grid = tmp_path / "table3.yaml"
    text = (ROOT / "experiments" / "table3.yaml").read_text(encoding="utf-8")
    grid.write_text(text.replace("experiment: quantization", "experiment: quantisation"), encoding="utf-8")
    command = [sys.executable, "-c", REFUSE_WITHOUT, *(option.format(grid=grid) for option in options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and words in done.stderr


def test_a_command_without_the_benchs_packages_is_one_line_and_the_doctor_still_answers():
    """-S: no packages but Python's own, as where `pip install .` stopped before `.[bench]`."""

    def run(*command):
        environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
        call = [sys.executable, "-S", "-m", *command]
        return subprocess.run(call, capture_output=True, text=True, env=environment, cwd=ROOT)

    for command in (["bench"], ["bench.sweep", "--grid", "experiments/table3.yaml"], ["bench", "compare"]):
        ended = run(*command)
        assert ended.returncode == 2 and ended.stdout == "" and ended.stderr.count("\n") == 1
        assert "pydantic" in ended.stderr and "pip install '.[bench]'" in ended.stderr
    ended = run("bench.doctor")
    assert ended.returncode == 1 and "cannot import" in ended.stdout and "Traceback" not in ended.stderr


def test_what_a_command_asks_for_is_what_the_extra_brings():
    import bench

    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {
        re.split(r"[>=<;\[ ]", line)[0].replace("-", "_").partition(".")[0]
        for line in extra["optional-dependencies"]["bench"]
    }
    assert {MODULES.get(name, name) for name in names} == set(bench.PACKAGES)
