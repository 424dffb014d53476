"""The report in a real browser: nothing goes wrong, what moves moves, and names are only names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import chromium, complaints, dress, requested, resize
from test_report import EVIL, shown

__all__ = ["shown"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def opened(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page, drawn."""
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.get((shown / "page.html").as_uri())
        eventually(lambda: not page.execute_script(
            "return [...document.querySelectorAll('.plot')].some(p => !p.dataset.drawn)"))  # fmt: skip
        yield page


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def all_of(page: Any, selector: str) -> list[Any]:
    found: list[Any] = page.find_elements("css selector", selector)
    return found


def test_it_opens_without_a_complaint_and_without_a_request(opened: Any) -> None:
    assert complaints(opened) == []
    addresses = requested(opened)
    assert len(addresses) >= 1
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data", "blob"}
    assert opened.execute_script("return document.querySelectorAll('.plot svg').length") == 5
    assert "cannot be drawn" not in opened.find_element("tag name", "main").text


def test_names_with_markup_do_no_harm(opened: Any) -> None:
    names = [name.text for name in all_of(opened, ".class .name")]
    assert EVIL in names
    assert all_of(opened, "img[src=x]") == []
    assert opened.execute_script("return document.querySelectorAll('script:not([type])').length") == 2
    labels = opened.execute_script(
        "return [...document.querySelectorAll('.plot svg text')].map(t => t.textContent)"
    )
    assert any(label.startswith("<script>alert(1)") for label in labels)


def test_the_slider_changes_the_pictures(opened: Any) -> None:
    slider = all_of(opened, "input[type=range]")[0]
    images = all_of(opened, ".gallery:first-of-type .tile img")
    output = all_of(opened, "output")[0]

    def sources() -> list[str]:
        return [image.get_attribute("src") for image in images]

    seen = [sources()]
    assert output.text == "4, the result"
    for iteration in ("3", "2", "1", "0"):
        slider.send_keys("\ue012")  # left
        assert output.text == iteration
        assert slider.get_attribute("aria-valuetext") == f"iteration {iteration}"
        seen.append(sources())
    assert len({tuple(one) for one in seen}) == 5
    slider.send_keys("\ue010")  # end
    assert sources() == seen[0]
    all_of(opened, ".play")[0].click()
    eventually(lambda: output.text in ("1", "2", "3"))
    eventually(lambda: output.text == "4, the result")
    assert sources() == seen[0]


def test_an_image_is_enlarged_by_mouse_and_keyboard_in_whole_pixels(opened: Any) -> None:
    tile, following = all_of(opened, ".tile")[:2]
    lens = all_of(opened, "#lens")[0]
    opened.execute_script("arguments[0].focus()", tile)
    eventually(lens.is_displayed)
    picture = lens.find_element("tag name", "img")
    assert picture.get_attribute("src") == tile.find_element("tag name", "img").get_attribute("src")
    assert picture.size == {"width": 256, "height": 256}  # 32 times 8
    assert picture.value_of_css_property("image-rendering") == "pixelated"
    for passing in ("pointerenter", "pointerleave"):
        opened.execute_script(f"arguments[0].dispatchEvent(new PointerEvent('{passing}'))", following)
        assert lens.is_displayed()
    assert picture.get_attribute("src") == tile.find_element("tag name", "img").get_attribute("src")
    tile.send_keys("\ue014")  # right
    assert opened.execute_script("return document.activeElement === arguments[0]", following)
    assert following.get_attribute("tabindex") == "0"
    following.send_keys("\ue00c")  # escape
    assert not lens.is_displayed()
    opened.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerenter'))", tile)
    assert lens.is_displayed()
    opened.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerleave'))", tile)
    assert not lens.is_displayed()


def test_what_is_copied_is_the_code(opened: Any) -> None:
    button = all_of(opened, ".copy")[0]
    opened.execute_script("arguments[0].click()", button)
    eventually(lambda: button.text in ("Copied", "Selected"))
    eventually(lambda: button.text == "Copy")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_readable_everywhere(opened: Any, scheme: str, width: int) -> None:
    dress(opened, scheme)
    resize(opened, width, 800)
    wider = opened.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0, "it scrolls sideways"
    contrasts = opened.execute_script(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5


#: The contrast of every text to the ground behind it, after WCAG 2.
CONTRASTS = """
const light = (text) => {
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const kinds = "h1, h2, h3, p, dt, dd, th, td, a, button, code, text, summary, output, label";
return [...document.querySelectorAll(kinds)]
  .filter(e => e.checkVisibility() && e.textContent.trim())
  .map(e => {
    const style = getComputedStyle(e);
    const ink = light(e.tagName === "text" ? style.fill : style.color);
    const [one, two] = [ink, light(ground(e))].sort((a, b) => b - a);
    return (one + 0.05) / (two + 0.05);
  });
"""
