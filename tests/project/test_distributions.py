"""Wheel and sdist, as `pip install .` makes them: built from a copy, installed where the project is not, and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("smi", "bench", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a wheel and an sdist, made by the build backend that pyproject.toml names."""
    base = tmp_path_factory.mktemp("built")
    source = base / "source"
    source.mkdir()
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    make = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
    run([sys.executable, "-c", make, str(base)], cwd=source)
    return base


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The folder of programs of a new environment: the wheel, and by a .pth file what the tests run with.

    The .pth names a folder with links to the packages that are installed here, torch among them, this project not.
    """
    pytest.importorskip("ensurepip")
    folder = built / "venv"
    venv.create(folder, symlinks=True, with_pip=True)
    python = str(folder / "bin" / "python")
    (wheel,) = built.glob("*.whl")
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)])
    others = built / "others"
    others.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.suffix != ".pth" and not package.name.startswith(
            ("__editable__", "sparse_model_inversion")
        ):
            (others / package.name).symlink_to(package)
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(inside) / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    return folder / "bin"


def run(command: list[str], cwd: Path | None = None) -> str:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_hold_every_file_of_the_packages(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("smi", "bench")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert wanted - in_wheel == set()
    assert wanted - in_sdist == set()
    assert not any(name.startswith(("tests/", "tools/")) for name in in_wheel)


def test_the_wheel_is_imported_from_where_it_was_installed(installed, tmp_path):
    told = run([str(installed / "python"), "-c", "import smi, bench; print(smi.__file__)"], cwd=tmp_path)
    assert Path(told.strip()).is_relative_to(installed.parent)


def test_its_shell_commands_start(installed, tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert "smi" in scripts
    for name in scripts:
        assert f"usage: {name}" in run([str(installed / name), "--help"], cwd=tmp_path)
