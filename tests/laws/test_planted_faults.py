"""Mutation check: every planted fault (tests/laws/faults*.py lists them) must be noticed by the law named beside it.

A fault is one change of one function's source. A law that lets a fault pass is too weak; a fault whose old text is no
longer there has to be planted anew, which the test says.
"""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import laws
from laws.core import Fault


def plant(monkeypatch, fault: Fault) -> None:
    """Compile the function with the fault, and put it wherever the sound one is held."""
    sound = inspect.getattr_static(fault.owner, fault.name)
    function = inspect.unwrap(getattr(sound, "__func__", sound))
    source = textwrap.dedent(inspect.getsource(function))
    assert fault.old in source, f"{fault.what}: {fault.name} no longer holds {fault.old!r}; plant it anew"
    source, module = source.replace(fault.old, fault.new), sys.modules[function.__module__]
    made: dict[str, object] = {}
    in_its_class = (
        f"def make(__class__):\n{textwrap.indent(source, '    ')}\n    return {fault.name}"  # for super()
    )
    code = compile(in_its_class, "<planted>", "exec", flags=__future__.annotations.compiler_flag)
    exec(code, vars(module), made)
    broken = made["make"](fault.owner)
    if isinstance(fault.owner, type):
        monkeypatch.setattr(fault.owner, fault.name, broken)
        return
    for name, holder in list(sys.modules.items()):
        if name.startswith("smi") and getattr(holder, fault.name, None) is sound:
            monkeypatch.setattr(holder, fault.name, broken)


def test_there_are_enough_faults_and_each_names_a_law():
    assert len(laws.FAULTS) >= 20
    assert {fault.law for fault in laws.FAULTS} <= set(laws.LAWS)
    assert len({fault.what for fault in laws.FAULTS}) == len(laws.FAULTS)


def test_no_law_is_idle():
    idle = set(laws.LAWS) - {fault.law for fault in laws.FAULTS}
    assert not idle


@pytest.mark.parametrize("fault", laws.FAULTS, ids=[fault.what for fault in laws.FAULTS])
def test_the_fault_is_noticed(monkeypatch, fault):
    plant(monkeypatch, fault)
    law = laws.LAWS[fault.law]
    search = settings(
        max_examples=max(100, law.examples),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        search(given(law.cases)(law.check))()
