"""The report in a real browser, opened from disk: no console error, plots, toggles, dark, phone, print, no script of a sample's."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium, resize, screen
from support.instrumented import write_run
from support.lineages import write_lineages
from support.mixed import FAMILIES, families_rows, mixture_rows, regression, tree_of, write

from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_report

pytestmark = pytest.mark.browser

HOSTILE = (
    "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'><svg onload='window.pwned = 3'>"
    "</style><a href='javascript:window.pwned=4'>go</a> \x1b[31m \ud800 {{figures}} " + "x" * 100_000
)
POLICIES = ("keep-0", "keep-10", "keep-20")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports: of a run, of two runs with hostile texts in one, of one without instruments, and of this one beside the hostile texts."""
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs, "plain", policies=POLICIES, seeds=(0, 1), generations=4)
    write_run(runs, "hostile", policies=POLICIES[:2], generations=2, texts=[HOSTILE], truth=True)
    write_run(runs, "old", policies=POLICIES[:2], generations=2, instruments=False)
    of = {"plain": ["plain"], "both": ["plain", "hostile"], "old": ["old"], "few": ["old", "hostile"]}
    for out, names in of.items():
        write_report([RunFolder(runs, name) for name in names], runs / f"{out}.html")
    return runs


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports on other model families and on mixtures."""
    runs = tmp_path_factory.mktemp("others")
    loop = {"generations": 8, "policies": ["keep-0", "accumulate"], "seeds": [0, 1]}
    for learner in ("gaussian", "vae"):
        tree = tree_of(learner, loop=loop)
        write(runs, learner, tree, families_rows(tree, FAMILIES[learner]))
    grid = {"rows": [300, 1000, 3000, 10000], "share": [0.0, 0.01, 0.5], "quality": [0.1, 1.0]}
    tree = tree_of("ridge", kind="mixture", mixture=grid, loop={"seeds": [0, 1]})
    write(runs, "mixture", tree, mixture_rows(tree, regression))
    for name in ("gaussian", "vae", "mixture"):
        write_report([RunFolder(runs, name)], runs / f"{name}.html")
    return runs


def show(driver: Any, page: Path, width: int = 1200, *, dark: bool = False, fresh: bool = True) -> None:
    """Load a page from disk, and scroll down it until every plot is drawn.

    Args:
        fresh: False for a test of a page as it is loaded, or as tests that leave it as they found it do: the one that is open will do,
            if `show` opened it in the same window.
    """
    wanted = (page.as_uri(), width, dark)
    if not fresh and driver.current_url == page.as_uri() and getattr(driver, "shown", None) == wanted:
        return
    driver.shown = wanted
    resize(driver, width, dark=dark)
    driver.get(page.as_uri())
    driver.execute_async_script(
        """
        const done = arguments[0], began = performance.now();
        const step = () => {
          const next = [...document.querySelectorAll(".plot")].find((one) => !one.querySelector(".main-svg") && !one.closest("details:not([open])"));
          if (next && performance.now() - began < 40000) {
            next.scrollIntoView({ behavior: "instant" });
            setTimeout(step, 10);
          } else {
            scrollTo({ top: 0, behavior: "instant" });
            requestAnimationFrame(() => setTimeout(done, 50));
          }
        };
        step();
        """
    )


def lines_shown(driver: Any) -> dict[str, int]:
    """Lines and heat maps that are drawn and can be seen, by plot; those that are folded away have no entry."""
    found: dict[str, int] = driver.execute_script(
        """
        const there = [...document.querySelectorAll(".plot")].filter((one) => !one.closest("details:not([open])"));
        return Object.fromEntries(there.map((place) => [
          place.dataset.figure,
          place.closest("[hidden]") ? -1 : place.querySelectorAll(".scatterlayer .trace, .heatmaplayer image").length,
        ]));
        """
    )
    return found


def clean(driver: Any) -> None:
    assert driver.get_log("browser") == []
    assert driver.execute_script("return window.pwned === undefined")


@pytest.mark.parametrize("name", ["old", "plain", "both"])
def test_the_page_opens_from_disk_with_all_its_plots(driver: Any, pages: Path, name: str) -> None:
    show(driver, pages / f"{name}.html")
    drawn = lines_shown(driver)
    assert all(drawn.values()), [plot for plot, count in drawn.items() if count == 0]
    assert len(drawn) == {"plain": 34, "both": 40, "old": 1}[name]
    assert drawn["perplexity"] == {"plain": 16, "both": 20, "old": 3}[name], "with guessing evenly, and the floor"
    colours = screen(driver).getcolors(1 << 24) or []
    assert len(colours) > 50
    clean(driver)


def test_numbers_can_be_taken_away_as_csv(driver: Any, pages: Path) -> None:
    show(driver, pages / "both.html", fresh=False)
    text = driver.execute_script("return collapsePage.csv('perplexity')")
    head, *lines = text.split("\r\n")
    assert head == "line,generation,perplexity,low (95%),high (95%)"
    (last,) = [line for line in lines if line.startswith("plain · keep-0,4,")]
    mean, low, high = map(float, last.split(",")[2:])
    assert low < mean < high
    assert all(
        driver.execute_script(
            "return Object.keys(collapsePage.data.figures).map((name) => collapsePage.csv(name).length > 40)"
        )
    )
    clean(driver)


def test_one_button_hides_a_policy_in_every_plot_table_and_text(driver: Any, pages: Path) -> None:
    show(driver, pages / "plain.html", fresh=False)
    before = lines_shown(driver)
    press = "document.querySelectorAll('button[data-toggle=policy]')[1].click()"
    driver.execute_script(press)
    after = lines_shown(driver)
    for plot, count in before.items():
        if plot.startswith(("histogram_", "deciles_")):
            assert after[plot] == (-1 if plot.endswith("_1") else count), plot
        else:
            alike = plot in ("perplexity", "forecast")  # guessing evenly is of no policy
            assert after[plot] == (count - alike) * 2 // 3 + alike, plot
    seen = "return [...document.querySelectorAll('#texts th, #phrases h3')].filter((one) => one.offsetParent).map((one) => one.innerText.trim())"
    assert not any("keep-10" in said for said in driver.execute_script(seen))
    assert any("keep-20" in said for said in driver.execute_script(seen))
    button = "return document.querySelectorAll('button[data-toggle=policy]')[1].getAttribute('aria-pressed')"
    assert driver.execute_script(button) == "false"
    driver.execute_script(press)
    assert lines_shown(driver) == before
    clean(driver)


def test_axes_switch_between_logarithmic_and_linear(driver: Any, pages: Path) -> None:
    show(driver, pages / "plain.html", fresh=False)
    kind = "return document.querySelector('[data-figure=perplexity]')._fullLayout.yaxis.type"
    press = "document.querySelector('button[data-log=%s]').click()"
    assert driver.execute_script(kind) == "log"
    driver.execute_script(press % "perplexity")
    assert driver.execute_script(kind) == "linear"
    assert "axis=perplexity-linear" in driver.current_url
    driver.execute_script(press % "perplexity")
    ridge = "return document.querySelector('[data-figure=histogram_0]')._fullData[0].y.map((y) => y - 4)"
    plain = driver.execute_script(ridge)
    driver.execute_script(press % "histograms")
    tails = driver.execute_script(ridge)
    driver.execute_script(press % "histograms")
    assert max(plain) == pytest.approx(max(tails), abs=0.35)
    small = [(y, more) for y, more in zip(plain, tails, strict=True) if 0 < y < 0.1]
    assert small, "a foot"
    assert all(more > 3 * y for y, more in small), "which logarithmic shares show"
    assert "#" not in driver.current_url, "all is as it was"
    clean(driver)


def test_a_mean_is_of_the_seeds_that_are_chosen(driver: Any, pages: Path) -> None:
    show(driver, pages / "plain.html", fresh=False)
    at = "return document.querySelector('[data-figure=%s]')._fullData.find((one) => one.meta === undefined && one.mode === 'lines+markers').y.slice(-1)[0]"
    press = "document.querySelector('button[data-toggle=seed][data-key=\"1\"]').click()"
    both = driver.execute_script(at % "perplexity")
    driver.execute_script(press)
    seeds = {
        seed: driver.execute_script(
            "const d = collapsePage.data.figures.perplexity.traces"
            f"; return d.find((one) => one.meta.role === 'seed' && one.meta.seed === {seed}).y.slice(-1)[0]"
        )
        for seed in (0, 1)
    }
    assert driver.execute_script(at % "perplexity") == pytest.approx(seeds[0])
    assert both == pytest.approx((seeds[0] * seeds[1]) ** 0.5, rel=1e-4), "geometric, as the sentence has it"
    assert "seed 0; what is of all seeds says so" in driver.execute_script(
        "return document.getElementById('some').textContent"
    )
    assert driver.current_url.endswith("#no-seed=1")
    driver.execute_script(press)
    assert driver.execute_script(at % "perplexity") == pytest.approx(both)
    assert "#" not in driver.current_url
    clean(driver)


def test_the_browser_of_samples_finds_and_filters(driver: Any, pages: Path) -> None:
    show(driver, pages / "plain.html", fresh=False)
    ask = """
        const [name, value] = arguments, input = document.getElementById(`browse-${name}`);
        input.value = value;
        input.dispatchEvent(new Event("input"));
        return [...document.querySelectorAll(".found li")].map((one) => one.textContent);
        """
    every = driver.execute_script(ask, "generation", "3")
    assert every
    assert all("generation 3" in text for text in every)
    first = driver.execute_script("return document.querySelector('.found p').textContent")
    word = max((word for word in first.split() if word.isalpha()), key=len)
    hits = driver.execute_script(ask, "find", word)
    assert hits
    assert all(word.casefold() in text.casefold() for text in hits)
    assert (
        driver.execute_script("return document.querySelector('.found mark').textContent.toLowerCase()")
        == word.casefold()
    )
    assert driver.execute_script(ask, "find", "no such word at all") == []
    driver.execute_script(ask, "find", "")
    driver.execute_script(ask, "generation", "")
    assert "#" not in driver.current_url
    clean(driver)


MARKS = """
    return Object.fromEntries([...document.querySelectorAll(".of-all")].filter((one) => one.offsetParent && one.textContent)
        .map((one) => [one.parentElement.textContent.replace(one.textContent, "").trim().slice(0, 30), one.textContent.trim()]))
    """


def test_what_goes_on_counting_what_is_hidden_says_so_where_it_stands(driver: Any, pages: Path) -> None:
    """Rows of a table go with their policy, the numbers that are taken away with both."""
    show(driver, pages / "plain.html", fresh=False)
    assert driver.execute_script(MARKS) == {}
    rows = "return [...document.querySelectorAll('#glance .glance tbody tr')].filter((one) => one.offsetParent).length"
    assert driver.execute_script(rows) == 3
    driver.execute_script("document.querySelector('button[data-toggle=seed][data-key=\"1\"]').click()")
    marks = driver.execute_script(MARKS)
    assert set(marks.values()) == {"of all seeds"}
    assert [name for name in marks if name.startswith("keep-0 ")], "the sentence"
    assert [name for name in marks if name.startswith("Each policy at its last")], "the table"
    assert {"keep-0", "keep-10", "keep-20"} <= marks.keys(), "histograms, maps, phrases"
    driver.execute_script("document.querySelectorAll('button[data-toggle=policy]')[1].click()")
    marks = driver.execute_script(MARKS)
    assert [said for name, said in marks.items() if name.startswith("keep-0 ")] == ["of all seeds and policies"]
    assert "keep-10" not in marks
    assert driver.execute_script(rows) == 2
    taken = driver.execute_script("return collapsePage.csv('perplexity')")
    assert "seed 0" in taken
    assert "seed 1" not in taken
    assert "keep-10" not in taken
    (last,) = [line for line in taken.split("\r\n") if line.startswith("keep-0,4,")]
    (alone,) = [line for line in taken.split("\r\n") if line.startswith('"keep-0, seed 0",4,')]
    assert float(last.split(",")[2]) == pytest.approx(float(alone.split(",")[3]), rel=1e-4), (
        "the mean of one seed is the seed"
    )
    assert last.endswith(",,"), "and has no interval"
    driver.get("about:blank")
    clean(driver)


def test_an_address_says_what_is_shown(driver: Any, pages: Path) -> None:
    address = (pages / "plain.html").as_uri()
    driver.get("about:blank")
    driver.get(f"{address}#browse&no-policy=keep-10&axis=perplexity-linear&theme=dark&text-find=zebra&no-policy=nobody")
    state = driver.execute_script(
        """
        return [document.querySelectorAll("button.chip[aria-pressed=false]").length, document.documentElement.dataset.theme,
          document.getElementById("browse-find").value, document.querySelectorAll(".found li").length,
          Math.abs(document.getElementById("browse").getBoundingClientRect().top) < 200, scrollY > 500];
        """
    )
    assert state == [1, "dark", "zebra", 0, True, True]
    driver.execute_script(
        "document.getElementById('browse-find').value = ''; document.getElementById('browse-find').dispatchEvent(new Event('input'))"
    )
    assert driver.execute_script("return document.querySelectorAll('.found li').length") == 12
    assert "text-find" not in driver.current_url
    driver.execute_script("location.hash = '#glance'")
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert "#glance&no-policy=keep-10" in driver.current_url, "a link to a section keeps what is chosen"
    driver.get("about:blank")
    clean(driver)


def test_one_button_hides_a_lineage_or_a_policy_with_what_is_between_lineages(driver: Any, tmp_path: Path) -> None:
    rates = {name: {"keep-0": rate} for name, rate in (("a", 0.2), ("b", 0.02))}
    write_lineages(tmp_path, "two", rates, policies=POLICIES[:2], seeds=(0, 1), generations=2)
    show(driver, write_report([RunFolder(tmp_path, "two")], tmp_path / "two.html"))
    before = lines_shown(driver)
    assert all(before.values()), [plot for plot, count in before.items() if count == 0]
    driver.execute_script("document.querySelectorAll('button[data-toggle=lineage]')[1].click()")
    after = lines_shown(driver)
    assert (after["perplexity"] - 1) * 2 == before["perplexity"] - 1, "guessing evenly is of no lineage"
    assert after["together_0"] == before["together_0"], "means over lineages are of all"
    assert driver.execute_script("return location.hash") == "#no-lineage=b"
    driver.execute_script("document.querySelectorAll('button[data-toggle=policy]')[1].click()")
    last = lines_shown(driver)
    assert last["matrix_bits_per_byte_on_0_1"] == -1
    assert last["matrix_bits_per_byte_on_0_0"] == before["matrix_bits_per_byte_on_0_0"]
    assert last["together_0"] * 2 == before["together_0"]
    text = driver.execute_script("return collapsePage.csv('matrix_bits_per_byte_on_0_0')").splitlines()
    assert text[0] == "generation · text of,model,value"
    assert text[1].startswith("0 · a,a,")
    assert len(text) == 1 + 3 * 2 * 2
    assert any(
        "of all policies" in said
        for said in driver.execute_script(
            "return [...document.querySelectorAll('.of-all')].map((one) => one.textContent)"
        )
    )
    clean(driver)


def test_hostile_texts_run_nothing_when_they_are_touched(driver: Any, pages: Path) -> None:
    """Every fold opened, every link and button pressed, each of which draws all plots anew: on a page that has few beside those of the texts."""
    show(driver, pages / "few.html")
    assert "<script>window.pwned" in driver.execute_script(
        "return collapsePage.data.series.length && document.querySelector('.found').textContent + document.querySelector('#texts').textContent"
    )
    driver.execute_script(
        """
        document.querySelectorAll("details").forEach((one) => { one.open = true; });
        document.querySelectorAll("a, button").forEach((one) => one.click());
        """
    )
    shown = driver.execute_script("return document.querySelector('#texts').textContent")
    assert "<script>window.pwned = 1</script>" in shown
    assert driver.execute_script("return document.querySelectorAll('main script, main img, main style').length") == 0
    assert driver.execute_script("return [...document.links].every((one) => one.hash && one.protocol === 'file:')")
    clean(driver)


def test_an_inline_script_that_is_not_ours_is_refused(driver: Any, pages: Path) -> None:
    """The content security policy works: without it the test above would rest on the escaping alone."""
    broken = pages / "broken.html"
    text = (pages / "old.html").read_text(encoding="utf-8")
    broken.write_text(
        text.replace("<main", "<script>window.pwned = 1</script><img src=x onerror='window.pwned=2'><main")
    )
    show(driver, broken)
    assert driver.execute_script("return window.pwned === undefined")
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_follow_the_system_and_the_button(driver: Any, pages: Path, dark: bool) -> None:
    show(driver, pages / "old.html", dark=dark)
    tone = "return getComputedStyle(document.querySelector('[data-figure=perplexity] .xtick text')).fill"
    seen = []
    for _ in range(2):
        pixels = screen(driver).resize((50, 40)).tobytes()
        seen.append((sum(pixels) / len(pixels), driver.execute_script(tone)))
        driver.execute_script("document.getElementById('theme').click()")
    (first, ink), (second, other) = seen
    assert (first < 90) == dark
    assert (second < 90) != dark
    assert ink != other, "the plots change with the page"
    clean(driver)


def test_on_a_phone_the_switch_of_the_theme_is_whole_and_a_wide_table_shows_that_it_goes_on(
    driver: Any, pages: Path
) -> None:
    show(driver, pages / "both.html", width=390)
    box = driver.execute_script("return document.getElementById('theme').getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] < box["right"] <= 390
    top = "const at = arguments[0]; return document.elementFromPoint((at.left + at.right) / 2, (at.top + at.bottom) / 2).id"
    driver.execute_script("document.getElementById('theme').scrollIntoView({ behavior: 'instant', inline: 'nearest' })")
    box = driver.execute_script("return document.getElementById('theme').getBoundingClientRect().toJSON()")
    assert driver.execute_script(top, box) == "theme"
    place = "document.querySelector('#glance .scroll')"
    assert driver.execute_script(f"return {place}.scrollWidth > {place}.clientWidth")

    def edge() -> int:
        """How dark the right end of the table is, above its first row."""
        driver.execute_script(f"{place}.scrollIntoView({{ behavior: 'instant', block: 'center' }})")
        at = driver.execute_script(f"return {place}.getBoundingClientRect().toJSON()")
        column, row = int(at["right"]) - 2, int(max(at["top"], 60)) + 3
        return sum(screen(driver).getpixel((column, row)))

    more = edge()
    driver.execute_script(f"{place}.scrollLeft = 10000")
    assert more < edge() - 60, "the shadow is there until the end is seen"
    clean(driver)


def test_a_phone_need_not_scroll_sideways(driver: Any, pages: Path) -> None:
    show(driver, pages / "both.html", width=390, fresh=False)
    driver.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    widest = "return Math.max(...[...document.querySelectorAll('.plot svg')].map((one) => one.getBoundingClientRect().right))"
    assert driver.execute_script(widest) <= 390
    clean(driver)


def test_nothing_is_wider_than_the_paper(driver: Any, pages: Path, others: Path) -> None:
    """Or all would be printed so much smaller."""
    for page in (pages / "plain.html", pages / "both.html", others / "mixture.html"):
        resize(driver, 688, 1000)  # 210 mm less margins
        driver.get(page.as_uri())
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        driver.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 688, page.name
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_it_prints_in_light_on_a_few_pages(driver: Any, pages: Path) -> None:
    """Drawn for paper without having been scrolled to, what is folded left out; afterwards all is as it was."""
    show(driver, pages / "old.html", dark=True)
    driver.get((pages / "plain.html").as_uri())
    closed = "return document.querySelectorAll('details:not([open])').length"
    count = driver.execute_script(closed)
    driver.execute_script(
        """
        addEventListener("beforeprint", () => {
          window.atPrint = {
            drawn: document.querySelectorAll(".plot .main-svg").length / 3,
            theme: document.documentElement.dataset.theme,
            widest: Math.max(...[...document.querySelectorAll(".plot .main-svg")].map((one) => one.clientWidth)),
          };
        });
        """
    )
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 100_000
    at_print = driver.execute_script("return window.atPrint")
    assert at_print["theme"] == "light"
    assert at_print["drawn"] >= 34
    assert pdf.count(b"/Type /Page\n") <= 8
    assert 0 < at_print["widest"] <= 680, "180 mm of paper"
    assert driver.execute_script(closed) == count
    assert driver.execute_script("return document.documentElement.dataset.theme === undefined")
    clean(driver)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "vae", "mixture"])
def test_other_families_and_mixtures_are_drawn_without_an_error(
    driver: Any, others: Path, name: str, dark: bool
) -> None:
    show(driver, others / f"{name}.html", 390 if dark else 1200, dark=dark)
    clean(driver)
    drawn = lines_shown(driver)
    assert len(drawn) >= 4
    assert min(drawn.values()) > 0
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    pictures = driver.execute_script(
        "return [...document.querySelectorAll('img.strip')].map((one) => one.complete && one.naturalWidth)"
    )
    assert all(width == 8 * 28 + 7 * 2 for width in pictures)
    assert (len(pictures) > 0) == (name == "vae")
    for button in driver.find_elements("css selector", "button[data-log]"):
        driver.execute_script("arguments[0].click()", button)
    clean(driver)
