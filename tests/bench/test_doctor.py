"""`python -m bench.doctor`: every lack is named with its remedy, and the exit code says whether anything can run."""

from __future__ import annotations

import shutil
import stat
import sys

import pytest
import torch
from safetensors.torch import save_file

import bench
from bench import doctor


@pytest.fixture
def examine(tmp_path, monkeypatch, capsys):
    """Run the doctor in an empty folder, without a network: (exit code, its lines)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = doctor.main(list(arguments))
        said = capsys.readouterr()
        return code, (said.out + said.err).splitlines()

    return run


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Put SLURM's programs first on PATH, `scontrol` with the given shell body."""

    def make(body: str) -> None:
        folder = tmp_path / "commands"
        folder.mkdir()
        for name in ("scontrol", "sbatch", "squeue", "srun"):
            program = folder / name
            program.write_text(f"#!{shutil.which('sh')}\n{body}\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    return make


def line(lines: list[str], *parts: str) -> str:
    found = [one for one in lines if all(part in one for part in parts)]
    assert found, f"no line with {parts} in:\n" + "\n".join(lines)
    return found[0]


def test_the_embedded_scale_runs_on_a_plain_machine(examine):
    code, lines = examine()
    assert code == 0
    assert torch.__version__.partition("+")[0] in line(lines, "ok", "packages")
    line(lines, "ok", "data", "digits", "test")
    line(lines, "ok", "folders", "runs")
    assert "--scale digits runs here" in lines[-1]


def test_it_writes_nothing(examine, tmp_path):
    examine()
    assert list(tmp_path.iterdir()) == []


def test_every_lack_is_followed_by_its_remedy(examine):
    _, lines = examine()
    lacks = [index for index, one in enumerate(lines) if one.startswith(("lack", "stop"))]
    assert lacks
    assert all(lines[index + 1].lstrip().startswith("-> ") for index in lacks)


def test_missing_imagenet_is_named_with_the_option_that_gives_it(examine):
    _, lines = examine()
    index = lines.index(line(lines, "lack", "data", "imagenet"))
    assert "--imagenet" in lines[index] + lines[index + 1]
    assert "ImageNet" in lines[-1]


def test_imagenet_is_found(examine, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures" / "val" / "n01440764"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "one.jpeg")
    _, lines = examine("--imagenet", str(tmp_path / "pictures"))
    line(lines, "ok", "data", "imagenet", str(tmp_path / "pictures"))


def test_weights_are_looked_for_in_the_checkpoints_folder(examine, tmp_path):
    (tmp_path / "weights").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "weights" / "deit_tiny_patch16_224.safetensors")
    _, lines = examine("--checkpoints", str(tmp_path / "weights"))
    line(lines, "ok", "weights", "deit_tiny_patch16_224")
    index = lines.index(line(lines, "lack", "weights", "deit_base_patch16_224"))
    assert "deit_base_patch16_224.safetensors" in lines[index + 1]


@pytest.mark.parametrize(
    ("body", "state", "says"),
    [
        ("echo 'Slurmctld(primary) at head is UP'", "ok", "answers"),
        ("echo 'Slurmctld(primary) at head is DOWN'; exit 1", "lack", "DOWN"),
    ],
    ids=["answers", "installed only"],
)
def test_slurm_is_believed_when_its_controller_answers(examine, fake_slurm, body, state, says):
    fake_slurm(body)
    code, lines = examine()
    assert code == 0
    line(lines, state, "slurm", says)


@pytest.mark.parametrize("package", ["torch", "timm", "ruamel.yaml", *bench.PACKAGES])
def test_a_missing_package_stops_everything(examine, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, lines = examine()
    assert code == 1
    assert f"{package} (" in line(lines, "stop", "packages")
    assert "Nothing can run here" in lines[-1]


def test_a_store_that_cannot_be_made_stops_everything(examine, tmp_path):
    (tmp_path / "file").write_text("")
    code, lines = examine("--store", str(tmp_path / "file" / "runs"))
    assert code == 1
    line(lines, "stop", "folders", "cannot be written")
    assert any("--store" in one for one in lines)


@pytest.mark.parametrize(
    "arguments",
    [["--data", "imagenet"], ["--imagenet", "nowhere"], ["--checkpoints", "nowhere"], ["--nonsense"]],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(examine, arguments):
    code, lines = examine(*arguments)
    assert code == 2
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in one for one in lines)


def test_data_sets_are_looked_for_and_not_fetched(examine, tmp_path, monkeypatch):
    monkeypatch.setenv("SMI_DATA_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
    _, lines = examine("--data", f"pets={tmp_path / 'pets'}")
    line(lines, "ok", "data", "pets")
    missing = lines.index(line(lines, "lack", "data", "cifar10 is not on this machine"))
    assert "fetched on first use" in lines[missing + 1] and "--data cifar10=DIR" in lines[missing + 1]
    assert not (tmp_path / "cache").exists()
