"""The page by the rules of axe-core: no serious fault, light or dark, wide or narrow, in any of its states."""

import json
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from test_page import CHROMIUM
from test_page import browser as browser

if TYPE_CHECKING:
    from .conftest import Live

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


@pytest.fixture(
    params=[("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)], ids="{0[0]}-{0[1]}".format
)
def page(browser: Any, live: "Live", patience: float, request: pytest.FixtureRequest) -> Iterator[Any]:
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(patience * 1000)
    page = context.new_page()
    page.goto(live.url)
    yield page
    context.close()


def faults(page: Any) -> list[str]:
    """The rules that axe finds broken in a way that matters, each with the places where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    broken = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]} ({node['failureSummary'][:300]})"
        for rule in broken
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def order(live: "Live", **fields: object) -> str:
    body = json.dumps({"steps": 1, "seconds": "0.2", **fields}).encode()
    request = urllib.request.Request(f"{live.url}/v1/videos", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        identifier: str = json.load(answer)["id"]
    return identifier


def test_axe_finds_no_serious_fault(page: Any, live: "Live") -> None:
    found = {"empty": faults(page)}
    cancelled = order(live, prompt="one that ends early", steps=1000)
    urllib.request.urlopen(
        urllib.request.Request(f"{live.url}/v1/videos/{cancelled}/cancel", method="POST")
    ).close()
    order(live, prompt="one to look at")
    page.locator("#jobs .failed").first.wait_for()
    clip = page.get_by_role("button", name="one to look at", exact=True).first
    clip.wait_for()
    for summary in page.locator("main summary").all():
        summary.click()
    found["full"] = faults(page)
    clip.click()
    page.locator("#player[src^=blob]").wait_for()
    found["dialog"] = faults(page)
    assert {state: list(broken) for state, broken in found.items() if broken} == {}
