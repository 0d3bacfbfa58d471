"""The page of `--html` in a browser: Chromium, as Debian packages it, without a window."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import history_of, long, of_script, small

from tensorc.inspect.page import function_data, page
from tensorc.ir.text import dump

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("needs a browser: no Chromium is installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright to drive a browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple[Path, list[Any]]]:
    """The pages, and the functions on each."""
    folder = tmp_path_factory.mktemp("pages")
    script = of_script(folder)
    functions = {"small": small(), "script": script, "long": [long(3000)], "timed": script[:1]}
    called = script[0].function.profile([np.ones((4, 8)), np.ones((4, 3))], 0.05)
    for name, found in functions.items():
        text = page(found, name, [called] if name == "timed" else ())
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html", found) for name, found in functions.items()}


@pytest.fixture
def opened(browser, written) -> Iterator[Any]:
    """A function that opens one of the pages; the test fails for errors in its scripts, and for what it asks for."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("request", lambda request: faults.append(request.url) if "://" in request.url[5:] else None)

    def open_page(name: str, address: str = "") -> Any:
        tab.goto(f"{written[name][0].as_uri()}#{address}")
        tab.wait_for_selector("body[data-ready]")
        return tab

    yield open_page
    context.close()
    assert faults == []


def state(tab) -> dict[str, Any]:
    return tab.evaluate("({ ...state })")


@pytest.mark.parametrize(("name", "index"), [("small", 0), ("script", 0), ("script", 1)])
def test_the_page_says_what_the_dump_says(opened, written, name: str, index: int) -> None:
    tab = opened(name, f"f={index}")
    told = tab.evaluate("""program.stages.map(stage => stage.blocks.flatMap(block => [
        block.head(), ...block.nodes.map(n => {
            const place = block.places.get(n);
            return "  " + block.statement(n) + (place ? "  @ " + place : "");
        }), "  " + block.tail()]).join("\\n") + "\\n")""")
    expected = [dump(stage.graph, lines=False) for stage in history_of(written[name][1][index]).stages]
    assert told == expected


def test_it_opens_on_the_first_pass_that_changes_something(opened) -> None:
    tab = opened("small")
    assert [b.inner_text() for b in tab.query_selector_all("#timeline .card.on b")] == ["simplify"]
    assert [s.inner_text() for s in tab.query_selector_all("#view .side.gone b")] == ["%0", "%1", "%2"]
    assert [s.inner_text() for s in tab.query_selector_all("#view .side.made .code")] == \
        ["  %0: f32[n] = logsumexp(x) {axes=[1], keepdims=false}"]


def test_a_node_shows_its_type_its_line_its_rewrites_and_its_kernel(opened) -> None:
    tab = opened("script", "f=0&s=2")
    tab.keyboard.press("/")
    tab.keyboard.type("matmul(x")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#details h2:has-text('matmul')")
    details = tab.inner_text("#details")
    assert "f32[x_0,3]" in details
    assert "model.py:6" in details
    assert "K.softmax(K.dot(x, w))" in details
    assert "as built" in details
    tab.click("#details .chip")
    tab.wait_for_selector(".kernel-head h2")
    assert state(tab)["view"] == "kernels"
    assert "matmul" in tab.inner_text(".kernel-head")


def test_what_a_node_was_and_became_can_be_followed(opened) -> None:
    tab = opened("small", "s=4")
    tab.click("#view .row:has-text('exp(%4)')")
    rules = [e.inner_text() for e in tab.query_selector_all("#details .history .rule")]
    assert rules == ["LogSumExp", "Expand"]
    tab.click("#details .history code:has-text('log(%1)')")
    assert state(tab)["stage"] == 0
    assert "%2 log" in tab.inner_text("#details h2")


def test_keys(opened) -> None:
    tab = opened("small")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#timeline .card.on b") == "expand"
    tab.keyboard.press("n")
    assert state(tab)["node"] is not None
    tab.keyboard.press("t")
    assert tab.query_selector("#view canvas.drawing") is not None
    tab.keyboard.press("k")
    assert tab.inner_text("#kernel-list .selected .name") == "k0"
    tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#timeline .card.on b") == "buffers"
    tab.keyboard.press("Escape")
    assert state(tab)["node"] is None
    tab.keyboard.press("?")
    assert "the pass before" in tab.inner_text("#help")


def test_times_stand_beside_kernels(opened) -> None:
    tab = opened("timed", "v=kernels")
    assert "A call takes" in tab.inner_text("#kernel-list")
    order = tab.evaluate("kernelView.sequence.map(i => program.kernels[i].times.seconds)")
    assert order == sorted(order, reverse=True)
    assert state(tab)["kernel"] == tab.evaluate("kernelView.sequence[0]")
    times = tab.inner_text(".kernel-head .times")
    assert "GB/s" in times
    assert "% of what" in times
    tab.click("#kernel-list th.time a")
    assert tab.evaluate("kernelView.sequence") == list(range(len(order)))


def test_lines_of_one_origin_are_linked(opened, written) -> None:
    """Pointing at a statement marks the lines of code that came of it, and no others."""
    tab = opened("small", "v=kernels")
    tab.wait_for_selector(".pane:nth-child(3) .row")
    (found,) = written["small"][1]
    data, codes = function_data(found, history_of(found))
    part = data["kernels"][0]["parts"][0]
    number = next(i for i, line in enumerate(part["loops"].splitlines()) if "exp(" in line)
    tab.locator(".pane:nth-child(1) .row").nth(number).locator(".origin").hover()
    for pane, form in ((2, "optimised"), (3, "machine")):
        code = codes["k0"][form]
        expected = [i for i, source in enumerate(code["from"]) if source == number + 1]
        tab.eval_on_selector(f".pane:nth-child({pane}) .code-pane", f"e => e.scrollTop = {20 * expected[0]}")
        tab.wait_for_selector(f".pane:nth-child({pane}) .linked")
        rows = tab.eval_on_selector_all(f".pane:nth-child({pane}) .row",
                                        "rows => rows.map(r => [+r.dataset.row, r.classList.contains('linked')])")
        assert [i for i, linked in rows if linked] == [i for i, _ in rows if i in expected] != []
    tab.click(".choice [data-form=written]")
    tab.wait_for_selector(".pane:nth-child(2) .row:has-text('%v1')")


def test_a_click_brings_the_code_of_a_statement_into_sight(opened) -> None:
    tab = opened("small", "v=kernels")
    tab.wait_for_selector(".pane:nth-child(3) .row")
    tab.locator(".pane:nth-child(1) .row:has-text('log(')").locator(".origin").click()
    for pane in (2, 3):
        tab.wait_for_selector(f".pane:nth-child({pane}) .pinned")


def test_the_drawing_answers_to_the_pointer(opened) -> None:
    tab = opened("small", "as=drawing&s=2")
    tab.wait_for_timeout(100)
    place = tab.evaluate("""(() => {
        const node = block().nodes[0], { x, y } = drawing.at.get(node), { scale, x: left, y: top } = drawing.view;
        return { node, x: (x - left) * scale, y: (y - top) * scale };
    })()""")
    tab.click("canvas.drawing", position={"x": place["x"], "y": place["y"]})
    assert state(tab)["node"] == place["node"]
    colours = tab.evaluate("""(() => {
        const c = document.querySelector("canvas.drawing");
        const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, seen = new Set();
        for (let i = 0; i < data.length; i += 4) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
        return seen.size;
    })()""")
    assert colours > 20


@pytest.mark.parametrize("shape", ["text", "drawing"])
def test_a_graph_of_3000_nodes(opened, shape: str) -> None:
    """Only what is in sight is in the document, or drawn; what a search finds is brought into sight."""
    tab = opened("long", f"as={shape}&only=false")
    assert "3,000 nodes" in tab.inner_text("#timeline .card:first-child")
    assert tab.evaluate("document.querySelectorAll('#view *').length") < 2000
    tab.keyboard.press("/")
    tab.keyboard.type("%2001:")
    assert "1 result" in tab.inner_text("#found .count")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#details h2").startswith("%2001")
    if shape == "text":
        assert tab.locator("#view .row.selected").is_visible()
    else:
        x, y = tab.evaluate("""(() => {
            const p = drawing.at.get(state.node), v = drawing.view;
            const { clientWidth: w, clientHeight: h } = drawing.canvas;
            return [(p.x - v.x) * v.scale / w, (p.y - v.y) * v.scale / h];
        })()""")
        assert 0 < x < 1
        assert 0 < y < 1


def test_boxes_of_a_drawing_do_not_overlap(opened) -> None:
    tab = opened("script", "as=drawing&only=false")
    for number in range(1, 10):
        tab.evaluate(f"go({{ stage: {number} }})")
        boxes = tab.evaluate("[...drawing.at.values()]")
        assert len(boxes) > 5
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                apart_x = abs(a["x"] - b["x"]) >= (a["width"] + b["width"]) / 2 - 0.01
                apart_y = abs(a["y"] - b["y"]) >= (a["height"] + b["height"]) / 2 - 0.01
                assert apart_x or apart_y


def test_bodies_of_loops_can_be_chosen(opened) -> None:
    tab = opened("script", "f=1&s=0")
    tab.select_option("#block", label="body0")
    assert "tanh" in tab.inner_text("#view")
    assert "body body0" in tab.inner_text("#view .row:first-child")


def test_functions_can_be_chosen_and_the_address_remembers_it(opened) -> None:
    tab = opened("script")
    tab.select_option("#function", label="loop")
    tab.wait_for_selector("#where:text-is('model.py:10')")
    tab.reload()
    tab.wait_for_selector("body[data-ready]")
    assert tab.evaluate("program.name") == "loop"


def test_light_and_dark(opened) -> None:
    tab = opened("small")
    colours = []
    for _ in range(2):
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.click("#theme")
    assert len(set(colours)) == 2


def test_on_a_narrow_window_one_side_is_shown(opened) -> None:
    tab = opened("small")
    tab.set_viewport_size({"width": 400, "height": 800})
    tab.reload()
    tab.wait_for_selector("body[data-ready]")
    assert tab.query_selector_all("#view .side.left") == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
