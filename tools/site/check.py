"""`python -m tools.site.check FOLDER`: links of a built site resolve in it, and nothing is loaded from a network."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
CSS_URL = re.compile(r"url\(\s*['\"]?(?:https?:)?//")


class Page(HTMLParser):
    """ids: what links can point at; links: (target, whether it is loaded with the page)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        loaded = given.get(LOADS.get(tag, ""))
        if loaded and given.get("rel") not in ("canonical", "next", "prev"):
            self.links.append((loaded, True))
        if tag == "a" and given.get("href"):
            self.links.append((given["href"], False))


def faults(folder: Path) -> list[str]:
    """What is wrong with the site in this folder, a line each."""
    paths = [
        path for path in sorted(folder.rglob("*.html")) if path.name != "404.html"
    ]  # which servers alone show
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    found = []
    for path, page in pages.items():
        for target, loaded in page.links:
            where = f"{path.relative_to(folder)}: {target}"
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if loaded and parts.scheme != "data":
                    found.append(f"{where} is loaded from a network")
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file():
                found.append(f"{where} leads to no file")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
                found.append(f"{where} leads to no heading")
    for style in sorted(folder.rglob("*.css")):
        if CSS_URL.search(style.read_text(encoding="utf-8")):
            found.append(f"{style.relative_to(folder)} loads from a network")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "all links resolve, nothing is loaded from a network")
    sys.exit(bool(wrong))
