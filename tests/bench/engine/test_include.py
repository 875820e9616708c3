"""Included folders: what is refused in one line, and what a folder's modules may be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engine import include
from bench.errors import BenchError


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(BenchError, match=r"^[^\n]+$") as caught:
        include.load([folder])
    return str(caught.value)


def test_a_file_that_can_be_no_module_is_named_from_its_folder_on(folder):
    (folder / "two-words.py").write_text("")
    assert (
        refused(folder)
        == "mine/two-words.py: 'two-words' is no module's name; allowed: letters, digits and _"
    )


def test_a_module_and_a_package_of_one_name_are_refused(folder):
    (folder / "both_of_one_name.py").write_text("")
    (folder / "both_of_one_name").mkdir()
    (folder / "both_of_one_name" / "__init__.py").write_text("")
    assert "'both_of_one_name' is a module and a package; rename one" in refused(folder)


def test_a_thing_registered_twice_is_refused_with_the_place_of_the_first(folder):
    (folder / "registers_first.py").write_text(
        "from bench.engine import include\ninclude.note('score twice')\n"
    )
    (folder / "registers_second.py").write_text(
        "from bench.engine import include\ninclude.note('score twice')\n"
    )
    assert "score twice is there already, from mine/registers_first.py; give yours another name" in refused(
        folder
    )


def test_other_files_and_hidden_modules_are_not_imported(folder):
    (folder / "notes.txt").write_text("no Python")
    (folder / "_helper_of_included.py").write_text("raise RuntimeError('imported unasked')\n")
    (folder / "plain_folder").mkdir()
    (folder / "own_of_included.py").write_text("answer = 42\n\ndef give():\n    return answer\n")
    include.load([folder])
    assert include.function("own_of_included:give")() == 42
    assert include.file_of("own_of_included") == "mine/own_of_included.py"
    assert include.code("module own_of_included") and include.code("module notes") is None


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere_included:give", "no included folder holds the module 'nowhere_included'"),
        ("own_of_functions:take", "mine/own_of_functions.py has no function 'take'"),
        ("own_of_functions:answer", "mine/own_of_functions.py has no function 'answer'"),
    ],
)
def test_a_function_that_is_not_there_is_refused(tmp_path, named, said):
    if "own_of_functions" not in include._modules:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "own_of_functions.py").write_text("answer = 42\n")
        include.load([tmp_path / "mine"])
    with pytest.raises(BenchError, match=said):
        include.function(named)
