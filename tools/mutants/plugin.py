"""The pytest plugin that judges mutants: all tests are collected once, and each mutant gets a fork of that process.

In the fork the mutant's code is put into the functions that exist already, and its source into the file, for the
processes that tests start. Then the tests that reach the changed lines run, the quickest first, until one fails.
Which tests reach which lines is measured beforehand with coverage, in one run of all of them (MUTANTS=measure).
"""

from __future__ import annotations

import ast
import gc
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol

SURVIVED, KILLED, TIMED_OUT, UNFIT = 0, 10, 11, 12
LIMIT = 90  # seconds for one test: fast ones take five, on a loaded machine some more
ROOT = Path.cwd()  # of the copy of the project that is mutated
WORK = ROOT.parent
MEASURED = WORK / "measured.json"
ORDERS = WORK / "orders.json"
VERDICTS = WORK / "verdicts.jsonl"
SOUND = (
    WORK / "sound.json"
)  # the file that is mutated now, as it was: for the next run, should this one be killed


def pytest_configure(config: pytest.Config) -> None:
    # A search that depends on chance or on the machine's load would judge the same mutant now so, now otherwise.
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("mutants")
    if os.environ["MUTANTS"] == "measure":
        config.pluginmanager.register(Measuring())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep this copy's share of the test files, "i/n": every n-th."""
    share, of = map(int, os.environ["MUTANTS_SHARE"].split("/"))
    files = sorted({item.path for item in items})[share::of]
    items[:] = [item for item in items if item.path in files]


class Measuring:
    """Runs the tests once and writes, for each that passes, its seconds and the lines that it reaches."""

    def __init__(self) -> None:
        rooms = os.environ["MUTANTS_ROOMS"].split()
        data = WORK / "coverage"
        settings = WORK / "measuring.ini"
        settings.write_text(
            f"[run]\nsource =\n    {chr(10).join(f'    {ROOT / room}' for room in rooms).strip()}\n"
            f"data_file = {data}\nparallel = true\ncontext = ${{MUTANTS_TEST}}\n"
        )
        # Processes that tests start measure themselves, under the name of the test that is running.
        os.environ.update(COVERAGE_PROCESS_START=str(settings), COVERAGE_CORE="ctrace")
        self.coverage = coverage.Coverage(
            data_file=str(data), config_file=False, source=[str(ROOT / room) for room in rooms]
        )
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        os.environ["MUTANTS_TEST"] = item.nodeid
        self.coverage.switch_context(item.nodeid)
        start = time.perf_counter()
        answer = yield
        self.seconds[item.nodeid] = time.perf_counter() - start
        self.coverage.switch_context("")
        return answer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)  # or skipped: neither can notice anything

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        self.coverage.combine(data_paths=[str(WORK)], keep=True)
        data = self.coverage.get_data()
        reached: dict[str, dict[str, list[int]]] = {}
        for path in data.measured_files():
            by_test = defaultdict(list)
            for line, tests in data.contexts_by_lineno(path).items():
                for test in tests:
                    if test in self.seconds and test not in self.failed:
                        by_test[test].append(line)
            reached[Path(path).relative_to(ROOT).as_posix()] = by_test
        passed = {test: seconds for test, seconds in self.seconds.items() if test not in self.failed}
        MEASURED.write_text(json.dumps({"seconds": passed, "reached": reached}))


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if os.environ["MUTANTS"] != "judge" or session.testsfailed:
        return None
    orders = json.loads(ORDERS.read_text())
    items = {item.nodeid: item for item in session.items}
    passing = session.items
    if any(order["tests"] is None for order in orders):  # all of those given: none that fails in any case
        passing = [item for item in session.items if passes(orders[0]["file"], item)]
    for order in orders:
        tests = [items[name] for name in order["tests"]] if order["tests"] is not None else passing
        start = time.perf_counter()
        verdict = judge(order["file"], order["source"], tests)
        took = round(time.perf_counter() - start, 1)
        line = {"name": order["name"], **verdict, "took": took, "at": time.time()}
        with VERDICTS.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
    return True


def passes(file: str, test: pytest.Item) -> bool:
    """Whether a test passes without a mutant, under which it must fail."""
    return judge(file, (ROOT / file).read_text(encoding="utf-8"), [test])["verdict"] == "survived"


def judge(file: str, source: str, tests: list[pytest.Item]) -> dict[str, object]:
    """Fork, put the mutant in and run the tests until one fails."""
    path = ROOT / file
    sound = path.read_text(encoding="utf-8")
    read, write = os.pipe()
    sys.stdout.flush()
    SOUND.write_text(json.dumps([str(path), sound]))
    try:
        path.write_text(source, encoding="utf-8")
        child = os.fork()
        if child == 0:
            os.close(read)
            os._exit(run_until_one_fails(path, sound, source, tests, write))
        os.close(write)
        with os.fdopen(read) as handle:
            said = handle.read().split("\n")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        path.write_text(sound, encoding="utf-8")
        SOUND.unlink()
    names = {SURVIVED: "survived", TIMED_OUT: "timed out", UNFIT: "unfit"}
    # A process that died took the mutant with it: that is noticed.
    return {"verdict": names.get(code, "killed"), "test": said[-1], "tests": len(tests)}


def run_until_one_fails(path: Path, sound: str, source: str, tests: list[pytest.Item], told: int) -> int:
    os.setsid()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        exchange(path, sound, source)
    except ValueError:  # the function closes over other names than before
        return UNFIT
    for item, following in zip(tests, [*tests[1:], None], strict=True):
        os.write(told, f"\n{item.nodeid}".encode())
        patience = threading.Timer(LIMIT, give_up)
        patience.daemon = True
        patience.start()
        reports = runtestprotocol(item, log=False, nextitem=following)
        patience.cancel()
        if any(report.failed for report in reports):
            return KILLED
    return SURVIVED


def exchange(path: Path, sound: str, source: str) -> None:
    """Put the mutated code, and the mutated defaults, into the functions of the file that exist already."""
    before, after = (codes(compile(text, str(path), "exec", dont_inherit=True)) for text in (sound, source))
    defaults = dict(constant_defaults(source))
    functions = [one for one in gc.get_objects() if type(one) is FunctionType]  # isinstance asks lazy objects
    for function in functions:
        place = place_of(function.__code__)
        if function.__code__.co_filename != str(path) or place not in after:
            continue
        if after[place] != before[place]:
            function.__code__ = after[place]
        positional, by_name = defaults.get(place[1], ([], {}))
        if function.__defaults__:
            given = positional[-len(function.__defaults__) :]
            function.__defaults__ = tuple(
                new.value if isinstance(new, ast.Constant) else old
                for new, old in zip(given, function.__defaults__, strict=True)
            )
        for name, old in (function.__kwdefaults__ or {}).items():
            new = by_name.get(name)
            function.__kwdefaults__[name] = new.value if isinstance(new, ast.Constant) else old


def place_of(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def codes(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """A module's code objects, at every depth."""
    found = {place_of(code): code}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= codes(constant)
    return found


def constant_defaults(source: str) -> Iterator[tuple[int, tuple[list[ast.expr], dict[str, ast.expr | None]]]]:
    """First line of each function, with the expressions of its defaults."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            names = [one.arg for one in node.args.kwonlyargs]
            yield first, (node.args.defaults, dict(zip(names, node.args.kw_defaults, strict=True)))


def give_up() -> None:
    """End this process and all that its test has started."""
    from processes import descendants  # tests/processes.py, which pytest's `pythonpath` finds

    for process in descendants(os.getpid()):
        os.kill(process, signal.SIGKILL)
    os._exit(TIMED_OUT)
