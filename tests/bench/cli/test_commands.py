"""`python -m bench`: every command is listed, answers --help, and refuses a bad option in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[3]


def test_the_list_names_every_module_that_is_a_command(capsys):
    """Those that take options from a person; what only bench itself starts is no command."""
    assert main([]) == main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    of_its_own = {
        "bench.__main__",
        "bench.engine.executors.slurm.task_process",
    }
    runnable = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "bench").rglob("*.py")
        if re.search(r"^if __name__ ==", path.read_text(encoding="utf-8"), re.M)
    }
    assert {module for module, _ in COMMANDS.values()} == runnable - of_its_own


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: python -m bench")


@pytest.mark.parametrize("name", [*COMMANDS, "nothing"])
def test_a_bad_option_is_one_line_and_exit_code_2(name, capsys):
    needed = {
        "sweep": ["--grid", "nowhere.yaml"],
        "store": ["du"],
        "publish_weights": ["a=b"],
        "compare": ["a", "b"],
        "decode_cache": ["a"],
        "merge": ["a", "b"],
    }
    assert main([name, *needed.get(name, []), "--nonsense"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "--nonsense" in said.err or name in said.err
