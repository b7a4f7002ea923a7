"""`collapse view` in a real browser: a page that follows its run and leaves the reader where they are."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium, resize, screen
from support.instrumented import write_run
from support.viewed import Live, serving
from support.waiting import PATIENCE

from collapse_cli.records.at_work import working
from collapse_cli.view import kept

pytestmark = pytest.mark.browser

PAGE = "const page = document.querySelector('iframe:not(.coming)')?.contentWindow; "


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(autouse=True)
def afresh(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are made as soon as they would be others; nothing is left of the page of another test."""
    monkeypatch.setattr(kept, "REST", 0.0)
    driver.get("about:blank")
    driver.get_log("browser")


def until(driver: Any, script: str, *, most: float = PATIENCE) -> Any:
    """Wait for a script to give something; `page` in it is the window of the report that is shown."""
    end = time.monotonic() + most
    while time.monotonic() < end:
        if found := driver.execute_script(f"{PAGE} return Boolean(page && ({script}))"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"after {most:.0f} s: {script}")


def of_page(driver: Any, script: str) -> Any:
    return driver.execute_script(f"{PAGE} {script}")


def reads(words: str) -> str:
    return f"page.document.body?.textContent.includes({words!r})"


def test_a_page_follows_its_run_and_stays_where_the_reader_is(driver: Any, tmp_path: Path) -> None:
    live = Live(tmp_path)
    with working(live.path), serving(tmp_path) as server:
        resize(driver, 1280)
        driver.get(f"http://127.0.0.1:{server.server_port}/run/live#texts")
        until(driver, reads("6 of 10 models"))
        until(driver, "page.document.querySelector('#texts')?.getBoundingClientRect().top < 200 && page.scrollY > 500")
        of_page(
            driver,
            """
            page.was = true;
            const folded = [...page.document.querySelectorAll("#texts details")];
            folded.forEach((one, at) => { one.open = at === 1; });
            page.document.querySelector("button[data-toggle=policy]").click();
            page.document.getElementById("theme").click();
            page.scrollBy({ top: 137, behavior: "instant" });
            """,
        )
        where = "return page.document.getElementById('texts').getBoundingClientRect().top"
        before = of_page(driver, where)
        live.measure()
        until(driver, f"!page.was && {reads('8 of 10 models')}")
        assert abs(of_page(driver, where) - before) <= 2
        state = of_page(
            driver,
            """
            return {
              open: [...page.document.querySelectorAll("#texts details")].map((one) => one.open),
              pressed: page.document.querySelector("button[data-toggle=policy]").getAttribute("aria-pressed"),
              theme: page.document.documentElement.dataset.theme, around: document.documentElement.dataset.theme,
              hash: location.hash, frames: document.querySelectorAll("iframe").length, said: document.title,
              drawn: [...page.document.querySelectorAll(".plot")].filter((one) => {
                const box = one.getBoundingClientRect();
                return box.height > 0 && box.bottom > 0 && box.top < page.innerHeight && !one.querySelector(".main-svg");
              }).length,
            };
            """,
        )
        assert state.pop("open")[:3] == [False, True, False]
        assert state.pop("said") == "live · at work"
        assert state == {
            "pressed": "false", "theme": "dark", "around": "dark", "frames": 1, "drawn": 0,
            "hash": "#texts&no-policy=keep-0&theme=dark",
        }  # fmt: skip
        live.measure()
        live.finish()
        until(driver, f"document.title === 'live · finished' && !{reads('of 10 models are measured')}")
        assert driver.get_log("browser") == []


def test_a_plot_that_was_zoomed_stays_so_and_text_that_is_marked_is_waited_for(driver: Any, tmp_path: Path) -> None:
    live = Live(tmp_path)
    with serving(tmp_path) as server:
        resize(driver, 1280)
        driver.get(f"http://127.0.0.1:{server.server_port}/run/live#plot-perplexity")
        range_of = "page.document.querySelector('[data-figure=perplexity]')._fullLayout?.xaxis.range"
        until(driver, f"{reads('6 of 10 models')} && page.Plotly && {range_of}")
        of_page(
            driver,
            """
            page.Plotly.relayout(page.document.querySelector("[data-figure=perplexity]"), { "xaxis.range": [0.5, 1.5] });
            page.getSelection().selectAllChildren(page.document.querySelector("h1"));
            """,
        )
        live.measure()
        time.sleep(3)
        assert of_page(driver, f"return {reads('6 of 10 models')}"), "a page is not taken away from under the mouse"
        where = "return page.document.getElementById('plot-perplexity').getBoundingClientRect().top"
        before = of_page(driver, f"page.scrollBy({{ top: 77, behavior: 'instant' }}); {where}")
        of_page(driver, "page.getSelection().removeAllRanges()")
        until(driver, f"{reads('8 of 10 models')} && JSON.stringify({range_of}) === '[0.5,1.5]'")
        assert abs(of_page(driver, where) - before) <= 2, "where the reader has come to since the next page was loaded"
        assert driver.get_log("browser") == []


def test_what_was_searched_for_stays_and_a_link_leads_to_what_is_followed(driver: Any, tmp_path: Path) -> None:
    live = Live(tmp_path)
    with working(live.path), serving(tmp_path) as server:
        resize(driver, 1280)
        address = f"http://127.0.0.1:{server.server_port}/run/live"
        driver.get(address)
        field = "page.document.querySelector('input[type=search]')"
        until(driver, f"{reads('6 of 10 models')} && {field}")
        origin = {
            "origin": address.rpartition("/run")[0],
            "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
        }
        driver.execute_cdp_cmd("Browser.grantPermissions", origin)
        of_page(
            driver,
            f"""
            {field}.value = "the";
            {field}.dispatchEvent(new page.Event("input", {{ bubbles: true }}));
            {field}.focus();
            page.was = true;
            """,
        )
        live.measure()
        until(driver, f"!page.was && {reads('8 of 10 models')}")
        assert of_page(driver, f"return [{field}.value, page.document.activeElement === {field}]") == ["the", True]
        of_page(
            driver,
            "page.document.querySelector('button[data-toggle=policy]').click(); page.document.getElementById('link').click()",
        )
        until(driver, "page.document.getElementById('link').textContent === 'copied'")
        copied = driver.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0], (why) => arguments[0](String(why)))"
        )
        assert copied.startswith(f"{address}#"), copied
        assert "no-policy=keep-0" in copied
        assert driver.get_log("browser") == []


def test_when_the_server_has_ended_the_page_stays_and_says_so(driver: Any, tmp_path: Path) -> None:
    write_run(tmp_path, "quick", generations=1)
    with serving(tmp_path) as server:
        driver.get(f"http://127.0.0.1:{server.server_port}/run/quick")
        until(driver, reads("Report on"))
    until(driver, "document.getElementById('told').textContent.includes('has ended')")
    assert of_page(driver, f"return {reads('Report on')}")


def test_the_list_follows_the_runs_and_lays_some_side_by_side(driver: Any, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=window.pwned=1>"
    hostile.mkdir()
    (hostile / "run.json").write_text("{")
    live = Live(tmp_path)
    write_run(tmp_path, "quick", generations=1)
    with serving(tmp_path) as server:
        resize(driver, 390, 800)
        driver.get(f"http://127.0.0.1:{server.server_port}/")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        resize(driver, 1280)
        tick = "document.querySelector('input[value={}]').click()"
        for name in ("live", "quick"):
            assert driver.execute_script("return document.getElementById('together').disabled")
            driver.execute_script(tick.format(name))
        live.measure()
        write_run(tmp_path, "newer", generations=1)
        end = time.monotonic() + PATIENCE
        said: Callable[[], str] = lambda: driver.execute_script("return document.body.innerText")  # noqa: E731
        while not ("4 of 5 generations" in said() and "newer" in said()) and time.monotonic() < end:
            time.sleep(0.1)
        assert "4 of 5 generations" in said()
        assert "newer" in said()
        assert driver.execute_script("return document.querySelectorAll('input:checked').length") == 2
        assert len(screen(driver).getcolors(1 << 24) or []) > 20
        driver.execute_script("document.getElementById('together').click()")
        until(driver, f"{reads('Reports on live, quick')} && location.pathname === '/run/live,quick'")
        assert driver.execute_script("return window.pwned === undefined")
        assert driver.get_log("browser") == []
