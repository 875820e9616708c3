"""Hook of mkdocs: which files the site is made of, each where it stands in the project, and the reference's pages.

Pages are the documents named in the nav, and all Markdown that they link to. Other files that they link to (figures,
grids, code) are copied, and what a copied page links to; a folder gets a page that lists it.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\(\s*<?)([^)\s>#]+)")
HTML_LINK = re.compile(r"(href|src)=\"([^\"#]+)")
INDEX = "index-of-folder.md"


def on_files(files: Files, config: Any) -> Files:
    """The site's files in the place of those of docs/."""
    made: dict[str, File] = {}
    for file in files:  # the theme's
        if not (file.abs_src_path or "").startswith(config.docs_dir):
            made[file.src_uri] = file
    for place, text in reference(config.extra["reference"]).items():
        made[place] = File.generated(config, place, content=text)
    waiting = [page for page in named(config.nav) if page not in made]
    while waiting:
        place = waiting.pop()
        source = ROOT / place
        if place in made or not source.exists():  # what is missing, mkdocs says
            continue
        if source.is_dir():
            made[place] = File.generated(config, f"{place}/{INDEX}", content=listing(place))
            targets = [f"{place}/{name}" for name in names_in(source)]
        elif source.suffix == ".html":
            made[place] = File.generated(
                config, place, content=to_rendered(source.read_text(encoding="utf-8"))
            )
            targets = linked(place)
        else:
            made[place] = File.generated(config, place, abs_src_path=str(source))
            targets = linked(place)
        waiting += targets
    return Files(list(made.values()))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to folders lead to the page that lists the folder."""

    def replaced(match: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[2]))
        is_folder = "://" not in match[2] and (ROOT / place).is_dir()
        return f"{match[1]}{match[2].rstrip('/')}/{INDEX}" if is_folder else match[0]

    return LINK.sub(replaced, markdown)


def named(nav: Any) -> list[str]:
    """Paths of the pages in a nav."""
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [place for one in inside for place in named(one)]


def linked(place: str) -> list[str]:
    """Paths from the project's folder that a document links to."""
    kinds = {".md": LINK, ".html": HTML_LINK}
    if (suffix := posixpath.splitext(place)[1]) not in kinds:
        return []
    text = CODE.sub("", (ROOT / place).read_text(encoding="utf-8"))
    targets = [target for _, target in kinds[suffix].findall(text) if not re.match(r"[a-z]+:", target)]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(place), target)) for target in targets]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] not in "._")


def to_rendered(page: str) -> str:
    """A copied HTML page whose links to documents lead to what becomes of them."""

    def replaced(match: re.Match[str]) -> str:
        folder, name = posixpath.split(match[2])
        if "://" in match[2] or not name.endswith(".md"):
            return match[0]
        name = "index.html" if name == "README.md" else f"{name.removesuffix('.md')}.html"
        return f'{match[1]}="{posixpath.join(folder, name)}'

    return HTML_LINK.sub(replaced, page)


def listing(place: str) -> str:
    """A page that lists a folder's files."""
    lines = [f"- [{name}]({name})" for name in names_in(ROOT / place)]
    return "\n".join([f"# {place}", "", *lines, ""])


def reference(sections: dict[str, list[str]]) -> dict[str, str]:
    """The reference's pages by path. Every public name of smi must stand in a section, and in one alone."""
    listed = [name for names in sections.values() for name in names]
    public = public_names((ROOT / "smi" / "__init__.py").read_text(encoding="utf-8"))
    if sorted(listed) != sorted(public):
        apart = sorted({*listed} ^ {*public}) or "a name stands twice"
        raise PluginError(f"mkdocs.yml, extra.reference and smi.__all__ differ: {apart}")
    text = "# smi\n\n"
    for title, names in sections.items():
        text += f"## {title}\n\n" + "".join(f"::: smi.{name}\n\n" for name in names)
    register = (
        "# bench.register\n\nWhat a module of an included folder calls to take part; "
        "[Adding things](../docs/adding.md) shows each.\n\n::: bench.register\n"
    )
    return {"reference/smi.md": text, "reference/register.md": register}


def public_names(source: str) -> list[str]:
    """What `__all__` of a module holds, read without importing it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
