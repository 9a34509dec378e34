"""The page in a real browser: made by keyboard, seen by role, with no help from outside."""

import shutil
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Live

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    with playwright.sync_playwright() as start:
        browser = start.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=300_000)
        yield browser
        browser.close()


class Seen:
    """What went wrong in a page, and which addresses it asked for."""

    def __init__(self, page: Any) -> None:
        self.errors: list[str] = []
        self.addresses: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))


@pytest.fixture(params=[("light", 1280), ("dark", 360)], ids=["desk", "phone"])
def page(browser: Any, live: "Live", patience: float, request: pytest.FixtureRequest) -> Iterator[Any]:
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(patience * 1000)
    page = context.new_page()
    seen = Seen(page)
    page.goto(live.url)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # The browser also reports refusals: a preview that is not there yet, a mistake in the form.
    assert [error for error in seen.errors if "Failed to load resource" not in error] == []
    assert all(address.startswith((live.url, "blob:")) for address in seen.addresses)
    context.close()


def test_a_video_is_made_watched_and_remixed(page: Any) -> None:
    page.get_by_role("textbox", name="What is to be seen?").fill("a red ball for the page")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="a red ball for the page", exact=True).first.click()
    dialog = page.get_by_role("dialog", name="Video")
    dialog.get_by_text("a red ball for the page").first.wait_for()
    page.locator("#player[src^=blob]").wait_for()
    assert dialog.get_by_text("Seed", exact=True).count() == 1
    dialog.get_by_role("button", name="Remix").click()
    prompt = page.get_by_role("textbox", name="What is to be seen?")
    assert prompt.input_value() == "a red ball for the page"
    prompt.fill("a blue ring")
    page.get_by_role("button", name="Remix video").click()
    page.get_by_role("button", name="a blue ring", exact=True).first.wait_for()


def test_a_storyboard_is_made_from_cards(page: Any) -> None:
    page.get_by_role("textbox", name="What is to be seen?").fill("a film in two cards")
    page.locator("#board summary").click()
    page.get_by_role("button", name="Add a card").click()
    page.get_by_role("button", name="Add a card").click()
    second = page.get_by_role("group", name="Card 2")
    first = page.get_by_role("group", name="Card 1")
    assert first.get_by_role("spinbutton", name="Second").input_value() == "0"
    first.get_by_role("textbox", name="What is seen").fill("a red ball")
    second.get_by_role("spinbutton", name="Second").fill("0.5")
    second.get_by_role("textbox", name="What is seen").fill("a blue box")
    second.get_by_role("combobox", name="Begins with").select_option("true")
    page.get_by_role("button", name="Make video").click()
    page.get_by_role("button", name="a film in two cards", exact=True).first.click()
    dialog = page.get_by_role("dialog", name="Video")
    dialog.get_by_text("0.5 s: a blue box (cut)").wait_for()
    dialog.get_by_role("button", name="Use these settings").click()
    assert second.get_by_role("textbox", name="What is seen").input_value() == "a blue box"
    second.get_by_role("button", name="Remove card 2").click()
    second.wait_for(state="detached")


CUT_OFF = """() => [...document.querySelectorAll("select")].filter((select) => {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = getComputedStyle(select).font;
  const room = select.clientWidth - 40; // its padding and its arrow
  return select.clientWidth && [...select.options].some((option) => pen.measureText(option.text).width > room);
}).map((select) => select.id)"""


def test_no_choice_is_cut_off(page: Any) -> None:
    page.locator("#board summary").click()
    page.get_by_role("button", name="Add a card").click()
    page.locator("#more summary").click()
    page.locator("#cards select").nth(1).evaluate(
        "select => select.replaceChildren()"
    )  # prompts of any length
    assert page.evaluate(CUT_OFF) == []
    for name in ("#detail", "#extend", "#remix-how"):
        page.locator(name).evaluate("part => (part.hidden = false, part.showModal?.())")
    assert page.evaluate(CUT_OFF) == []


def test_a_mistake_is_told_and_the_prompt_kept(page: Any) -> None:
    page.get_by_role("textbox", name="What is to be seen?").fill("kept")
    page.locator("#form").evaluate("form => (form.noValidate = true)")
    page.locator("#seconds").fill("1000")
    page.get_by_role("button", name="Make video").click()
    page.get_by_role("alert").get_by_text("1000 is no length in seconds").wait_for()
    assert page.get_by_role("textbox", name="What is to be seen?").input_value() == "kept"


def test_a_failure_has_room_for_its_sentence(page: Any, live: "Live") -> None:
    body = b'{"prompt": "with somebody", "characters": [{"id": "char_x"}]}'
    head = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{live.url}/v1/videos", body, head)):
        sentence = page.locator("#jobs .failed").first
        sentence.wait_for()
    assert sentence.bounding_box()["width"] > 200
    page.get_by_role("button", name="Dismiss: with somebody").first.click()
    sentence.wait_for(state="detached")


def test_everything_that_can_be_used_has_a_name(page: Any) -> None:
    page.locator("#more summary").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("main input, main select, main textarea, main button")]
          .filter((node) => node.checkVisibility())
          .filter((node) => !(node.labels?.length || node.textContent.trim() || node.ariaLabel))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []
