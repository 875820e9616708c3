"""Whatever users call things, pages show it as it is, and columns stay where they are."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.publish.manifest import Sheet
from bench.publish.parts import footer, markdown, method_title, provenance, spent, telling
from bench.publish.words import Markup, code, plain, shown

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)
NASTY = st.text("|\\`*_[]<>&;#~a1 \n$", min_size=1, max_size=12)


def cells(page: str) -> list[list[str]]:
    """A page's table as a reader sees it: the text of each cell."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    found: list[list[str]] = []
    for before, token in pairwise(tokens):
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            text = "".join(child.content for child in token.children)
            found[-1].append(text)
        elif before.type == "tr_open" or token.type == "tr_open":
            found += [[]] if token.type == "tr_open" else []
    return found


@given(st.lists(NASTY | TEXT, min_size=2, max_size=4, unique=True), st.data())
@example(["W|A noise", "two\nlines"], None)
@example(["a\\|b", "c\\"], None)
@example(["*x*", "[a](b) `c` <i>d</i> &amp; __e__"], None)
def test_a_table_shows_every_text_as_it_is_in_its_own_column(texts, _):
    texts = [" ".join(text.split()) or "x" for text in texts]
    names = [f"column {place}" for place in range(len(texts))]
    page = markdown([dict(zip(names, texts, strict=True)), dict.fromkeys(names, "1")])
    assert len(page.splitlines()) == 4
    assert cells(page) == [names, texts, ["1"] * len(names)]


@given(TEXT | NASTY)
def test_plain_text_is_shown_as_it_is(text):
    assert shown(plain(text)) == " ".join(text.split())


@given(st.text("`ab |", min_size=1, max_size=8).map(str.strip).filter(bool))
def test_code_shows_what_is_in_it(text):
    (inline,) = [t for t in MarkdownIt("commonmark").parse(code(text)) if t.type == "inline"]
    (child,) = inline.children
    assert child.type == "code_inline" and child.content == " ".join(text.split())


def test_what_needs_no_escape_gets_none():
    for text in ("cifar_vit_small@0", "DeepInversion (dense)", "W4/A8", ">= 2.00", "R&D", "97.2 ± 0.3 (3)"):
        assert plain(text) == text
    assert "[a](b)" in markdown([{"x": Markup("[a](b)")}])


def test_axes_are_named_where_cells_look_alike_without_them():
    base = {"model": "m", "method": "a", "seed": 0, "dataset": "x"}
    assert telling([base, {**base, "seed": 1}], "model", "method", "seed") == []
    assert telling([base, {**base, "dataset": "y"}], "model", "method", "seed") == ["dataset"]
    assert telling([base, {**base, "dataset": "y", "model": "n"}], "model", "method", "seed") == []
    assert telling([base, {**base, "pool": "p"}], "model", "method", "seed") == ["pool"]


def sheet(methods, records=None) -> Sheet:
    return Sheet(*("g", "t", "smoke", "s", "g", {}, "run `x`"), methods, {}, {}, [], records or {})


def test_methods_of_one_title_are_told_apart_by_their_names():
    two = sheet({"a": {"title": "Same"}, "b": {"title": "Same"}, "c": {"title": "Other\none"}, "d": {}})
    titles = [method_title(two, name) for name in ("a", "b", "c", "d", "gone")]
    assert titles == ["Same [a]", "Same [b]", "Other one", "d", "gone"]


def test_seconds_are_of_all_attempts_where_they_are_known():
    made = {"device": "d|e", "device_type": "cpu", "versions": {}, "finished": "2026-01-01", "status": "done"}
    records = {"a": {**made, "seconds": 2.0}, "b": {**made, "seconds": 3.0}}
    records["b"]["earlier_attempts"] = [{"seconds": 20.0, "ended": "stopped"}, {"seconds": 7.0}]
    found = sheet({}, records)
    assert spent(records["b"]) == 30 and provenance(found)["seconds"] == "32 in 2 tasks"
    assert "hardware: d\\|e (cpu)" in footer(found) and "command: `` run `x` ``" in footer(found)
