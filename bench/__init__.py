"""The reproducibility suite: declarative grids -> plan -> tasks -> records -> tables. Holds no method of its own."""

from __future__ import annotations

import sys
from importlib.util import find_spec

# What the extra "bench" of pyproject.toml brings, by the names that are imported.
PACKAGES = (
    "huggingface_hub",
    "jinja2",
    "markdown_it",
    "markupsafe",
    "matplotlib",
    "numpy",
    "pandas",
    "PIL",
    "pydantic",
    "rich",
    "ruamel",
    "scipy",
    "sklearn",
    "submitit",
    "tabulate",
    "torchvision",
)


def _refuse_without_packages() -> None:
    """End a command that lacks a package with one line; the doctor's own page says more, and comes without them."""
    if sys.argv[:1] != ["-m"] or {"doctor", "bench.doctor"} & set(sys.orig_argv):
        return
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        print(
            f"error: bench needs packages that are not here ({', '.join(missing)}): pip install '.[bench]' in the "
            "project's folder; python -m bench.doctor says what else is missing",
            file=sys.stderr,
        )
        raise SystemExit(2)


_refuse_without_packages()
