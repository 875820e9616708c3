"""What holds for every page that bench makes: whole without a network, no wider than its window, readable, printed."""

from __future__ import annotations

from pathlib import Path

TAB, ENTER = "\ue004", "\ue007"  # WebDriver's names of keys

# [element, contrast ratio of its text] for all text of the page (WCAG 2)
CONTRAST = r"""
() => {
  const light = (colour) => {
    const parts = colour.match(/[\d.]+/g).slice(0, 3).map((one) => one / 255);
    const [r, g, b] = parts.map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("h1, h2, h3, p, li, td, th, a, label, .chip, .where, .found")].map((one) => {
    const [text, back] = [light(getComputedStyle(one).color), light(behind(one))];
    return [one.outerHTML.slice(0, 60), (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)];
  });
}
"""


def check(browser, page: Path, with_pictures: bool = True) -> None:
    """What must hold for any page, in whichever window."""
    browser.open(page)
    assert browser.messages() == []
    pictures = browser.run(
        "[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0 && !!i.alt])"
    )
    assert bool(pictures) == with_pictures and [alt for alt, loaded in pictures if not loaded] == []
    assert (
        browser.run(
            "performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"
        )
        == 0
    )
    width = browser.run("document.documentElement.clientWidth")
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    outside = "[...document.querySelectorAll('table, pre, img')].filter(e => !e.closest('.scroll')).length"
    assert browser.run(outside) == 0
    boxes = browser.run("[...document.querySelectorAll('.scroll')].map(e => e.getBoundingClientRect().right)")
    assert max(boxes) <= width + 1
    small = "[...document.querySelectorAll('p, li, td')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 12)"
    assert browser.run(f"{small}.length") == 0, "text too small to read"
    broken = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert browser.run(broken) == 0
    assert browser.pdf().startswith(b"%PDF")
