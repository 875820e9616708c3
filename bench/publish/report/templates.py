"""The templates beside this file, filled: they escape all that they are given; styles and script stand in the page."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Environment(
    loader=PackageLoader("bench.publish.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def whole(template: str, **values: Any) -> str:
    """A page that extends base.html.j2. The one script it may run is named by its hash."""
    script = _own("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return TEMPLATES.get_template(template).render(
        css=Markup(_own("page.css")), script=Markup(script), digest=digest, **values
    )


def macros(template: str) -> Any:
    """A template's macros as functions."""
    return TEMPLATES.get_template(template).module


def _own(name: str) -> str:
    """A file beside this one."""
    return resources.files("bench.publish.report").joinpath(name).read_text(encoding="utf-8")
