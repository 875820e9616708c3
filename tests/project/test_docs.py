"""The documents keep their promises: links resolve, examples run, nothing of one machine stands in the tree."""

from __future__ import annotations

import functools
import os
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

import smi
from smi.command_line.main import main

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"build", "dist", "runs", "data", "__pycache__"}  # as .gitignore; hidden folders too, but for .ci
TEXT = {".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".json", ".sh", ".cfg", ".html", ".svg", ""}
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
NAMED_FILE = re.compile(r"`((?:smi|bench|tests|experiments|docs)/[\w./-]*)`")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Folders of somebody's machine, and hosts of package registries; spelled apart so that this file passes.
PRIVATE = re.compile(
    "|".join(
        [
            r"(?<![\w.$}{])/(?:home|root|Users|work)" + r"/(?!someone)\w",
            "pypi" + r"\.org",
            "python" + r"hosted\.org",
            "download" + r"\.pytorch\.org",
            "extra-index[-]url",
            "find[-]links",
        ]
    )
)


def files() -> list[Path]:
    found = []
    for folder, inside, names in os.walk(ROOT):
        inside[:] = [
            name
            for name in inside
            if name not in SKIPPED and not name.endswith(".egg-info") and (name[0] != "." or name == ".ci")
        ]
        found += [Path(folder) / name for name in names if Path(name).suffix in TEXT and name != ".git"]
    return sorted(found)


MARKDOWN = [path for path in files() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(markdown: str) -> set[str]:
    """Anchors of a document's headings as code hosts make them."""
    headings = re.findall(r"^#+\s+(.*?)\s*#*$", CODE_BLOCK.sub("", markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolves(document: Path, target: str) -> bool:
    place, _, anchor = target.partition("#")
    file = document.parent / place if place else document
    if not file.exists() or file.suffix != ".md" or not anchor:
        return file.exists()
    return anchor in anchors(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", MARKDOWN, ids=name_of)
def test_every_relative_link_resolves(document):
    text = CODE_BLOCK.sub("", document.read_text(encoding="utf-8"))
    targets = [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if not resolves(document, target)] == []


@pytest.mark.parametrize("document", MARKDOWN, ids=name_of)
def test_every_file_of_the_project_that_is_named_exists(document):
    named = NAMED_FILE.findall(document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", MARKDOWN, ids=name_of)
def test_every_session_that_is_named_exists(document):
    text = document.read_text(encoding="utf-8")
    named = [name for names in re.findall(r"nox -s((?: [a-z]\w*)+)", text) for name in names.split()]
    tables = re.findall(r"^\| session \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    rows = [row for table in tables for row in table.splitlines()[2:] if row]
    named += [name for row in rows for name in re.findall(r"`([a-z]\w*)`", row.split("|")[1])]
    assert set(named) - sessions() == set()


def sessions() -> set[str]:
    """Names of the noxfile's sessions."""
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return {
        given or function
        for given, function in re.findall(
            r'^@nox\.session(?:\(name="(\w+)"\))?\ndef (\w+)', source, re.MULTILINE
        )
    }


def test_readme_is_short_and_starts_with_what_people_type():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    set_up = "python3 -m venv .venv && .venv/bin/pip install -q nox uv && .venv/bin/nox -s reproduce_table3"
    assert {set_up, ".venv/bin/nox -s tests"} <= set(lines)
    first_screen = "\n".join(lines[:40])
    for command in ("nox -s reproduce_table3", "python -m bench.sweep --grid experiments/kd.yaml"):
        assert f"`{command}`" in first_screen


@pytest.mark.parametrize(
    ("section", "scale"), [("What comes out", "digits"), ("Natural images: CIFAR-10", "cifar")]
)
def test_readme_quotes_the_tables_as_they_are(section, scale):
    """Every figure of README's excerpts stands in a row of the same method of a committed table, or of the one that is
    there now: whoever has made a table anew, on another processor, has other figures and the README that came."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    excerpt = text.partition(f"## {section}")[2].partition("\n## ")[0]
    made = sorted((ROOT / "results" / scale).glob("table*.md"))
    texts = [text for path in made for text in (path.read_text(encoding="utf-8"), committed(path))]
    table = [row for text in texts for row in rows_of(text)]
    quoted = [row for row in rows_of(excerpt) if "±" in " ".join(row)]
    assert quoted
    assert [row[0] for row in quoted if not any(set(row) <= set(source) for source in table)] == []


def committed(path: Path) -> str:
    """A file as the last commit has it; empty where this is no git checkout."""
    command = ["git", "-C", str(ROOT), "show", f"HEAD:{name_of(path)}"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8").stdout


def rows_of(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]


@pytest.mark.parametrize("document", ["README.md", "docs/library.md"])
def test_examples_run(document, tmp_path, monkeypatch):
    """All Python blocks of a document, one after the other, on a small random model instead of a download."""
    blocks = PYTHON_BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))
    assert blocks, f"{document} has no Python example"
    names: list[str] = []

    def create_model(name: str, **_) -> VisionTransformer:
        assert timm.is_model(name), f"{document} names {name!r}, which timm does not know"
        names.append(name)
        torch.manual_seed(len(names))
        return VisionTransformer(
            img_size=32, patch_size=4, embed_dim=24, depth=2, num_heads=2, num_classes=10
        ).eval()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(smi, "invert", functools.partial(smi.invert, iterations=310, count=2))
    namespace: dict[str, object] = {}  # a later example may go on from an earlier one
    for block in blocks:
        source = re.sub(r"\b(count|steps)=\d+", r"\1=2", block)
        exec(compile(source, document, "exec"), namespace)
    assert names


def test_the_shell_command_of_readme_ends_in_a_file_that_runs(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^smi (.*)", text, re.MULTILINE)

    def create_model(name: str, **_) -> VisionTransformer:
        torch.manual_seed(0)
        return VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=10
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", create_model)
    words = line.split()
    assert timm.is_model(words[1]) and main([*words, "--count", "2", "--iterations", "2"]) == 0
    reader = onnxruntime.InferenceSession(words[-1])
    (logits,) = reader.run(None, {"image": torch.zeros(3, 3, 32, 32).numpy()})
    assert logits.shape == (3, 10)


def test_nothing_of_one_machine_stands_in_the_tree():
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if PRIVATE.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_every_function_that_the_walk_through_a_cell_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = text.partition("## One cell")[2].partition("\n## ")[0]
    names = re.findall(r"`((?:bench|smi)(?:\.\w+)+)`", walk)
    assert len(names) > 15
    assert all(callable(pkgutil.resolve_name(name)) for name in names)


def test_every_folder_of_bench_is_on_the_map():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert rooms and all(f"`bench/{room}/`" in text for room in rooms)
