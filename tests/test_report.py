"""The page of a recording: what stands in it, that it is whole, and, in a real browser, that it draws and asks for nothing."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chromium import Chromium, find_chromium
from tlbcore import recordings
from tlbcore.cli.main import main
from tlbcore.profile import profile
from tlbcore.report.page import __file__ as page_file
from tlbcore.report.page import page, write_page
from tlbcore.report.page.patterns import NR_PATTERNS, REASON, patterns
from tlbcore.report.page.timeline import MAX_POINTS, lanes

DATA = Path(__file__).parent.parent / "data"
APACHE = DATA / "recordings" / "apache.perf.txt.zst"
MICRO = DATA / "recordings" / "micro.perf.txt.zst"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Outline(HTMLParser):
    """Checks that tags are closed in order, and keeps ids, links and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """What opens has to be closed."""
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in {"href", "src", "srcset", "data", "action"}:
                (self.links if str(value).startswith("#") else self.addresses).append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """What closes itself opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        """It closes what was opened last."""
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "apache.html"
    assert main(["report", str(APACHE), "-o", str(path)]) == 0
    return path


def test_the_page_is_well_formed_and_stands_alone(apache: Path) -> None:
    text = apache.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.addresses == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)
    assert "default-src 'none'" in text
    assert apache.stat().st_size < 1_000_000


def test_the_page_has_the_numbers_of_the_profile(apache: Path) -> None:
    shown = re.sub(r"<[^>]*>", " ", apache.read_text(encoding="utf-8")).replace("\u202f", "")
    for number in ("12469", "5051", "99.3%", "11805", "0.986", "5304", "449 of 5051"):
        assert number in shown
    assert "apache2 32340" in shown


def test_an_exit_has_one_name(apache: Path) -> None:
    """In the table of what is useless as in those of who caused it, of the comparison and of the agreement."""
    text = apache.read_text(encoding="utf-8")
    assert "exit_group" not in text
    assert "exit_call" not in text
    assert "IPIs of exit" in text
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL))
    for name in ("time", "causes", "useless", "others", "agreement"):
        assert re.search(r">(IPIs of )?exit<", sections[name]), name


def test_two_sums_of_the_same_are_explained(apache: Path, tmp_path: Path) -> None:
    """CPUs told: of the replay that follows the recorded masks, and of the one that is compared with other kernels."""
    shown = re.sub(r"<[^>]*>", "", apache.read_text(encoding="utf-8")).replace("\u202f", "")
    useless, others = shown.index("Of 5349 CPUs that the model"), shown.index("IPIs53485343")
    why = "Sums may differ a little from what was useless: there mm_cpumask is corrected by what the recording shows of it"
    assert useless < shown.index(why) < others
    text = tmp_path / "x.perf.txt"
    text.write_text(
        "               m   7/7     [000] 1.000000001: raw_syscalls:sys_exit: NR 11 = 0\n", encoding="utf-8"
    )
    without = page(profile(recordings.load(text), kernels=["linux-5.10"], machines=["default"]))
    assert "Other kernels and machines" in without
    assert "Sums may differ" not in without  # no flushes are recorded, so no masks


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    text = tmp_path / "x.perf.txt"
    head = "</script><b>x   7/7     [000]"
    text.write_text(
        f"{head} 1.000000001: raw_syscalls:sys_enter: NR 11 (7f0000000000, 1000, 0, 0, 0, 0)\n"
        f"{head} 1.000000009: tlb:tlb_flush: pages:1 reason:local MM shootdown (3)\n"
        f"{head} 1.000000090: raw_syscalls:sys_exit: NR 11 = 0\n",
        encoding="utf-8",
    )
    shown = page(profile(recordings.load(text), kernels=["linux-5.10"], machines=["default"]))
    outline = Outline()
    outline.feed(shown)
    assert outline.open == []
    assert "<b>x" not in shown
    assert "&lt;/script&gt;&lt;b&gt;x 7" in shown


def test_an_empty_recording_has_a_page(tmp_path: Path) -> None:
    text = tmp_path / "x.perf.txt"
    text.write_text(
        "               m   7/7     [000] 1.000000001: raw_syscalls:sys_exit: NR 11 = 0\n", encoding="utf-8"
    )
    assert "Nothing was flushed" in page(profile(recordings.load(text), kernels=["linux-5.10"], machines=["default"]))


def test_many_flushes_become_sums_of_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile(recordings.load(MICRO), kernels=["linux-5.10"], machines=["default"])
    single = lanes(found)["lanes"][0]
    assert len(single["t"]) <= MAX_POINTS
    monkeypatch.setattr("tlbcore.report.page.timeline.MAX_POINTS", 100)
    coarse = lanes(found)["lanes"][0]
    assert len(coarse["t"]) < 200
    assert sum(coarse["n"]) == sum(single.get("n", [1] * len(single["t"]))) == len(found.flushes)


def test_a_pattern_means_one_thing_in_all_lanes_and_in_the_legends() -> None:
    found = profile(recordings.load(APACHE), kernels=["linux-5.10"], machines=["default"])
    drawn = lanes(found)["lanes"]
    assert [lane["form"] for lane in drawn] == ["bars", "bars", "bars", "strips"]
    meanings: dict[int, set[str]] = {}
    for lane in drawn[:3]:
        assert len(set(lane["p"])) == len(lane["p"]) == len(lane["series"])
        for pattern, name in zip(lane["p"], lane["series"], strict=True):
            meanings.setdefault(pattern, set()).add(name)
    both = meanings.pop(REASON["gone"])
    assert both == {"gone", "remote wrong CPU: had nothing to flush"}, "the model's word and the kernel's for the same"
    assert all(len(names) == 1 for names in meanings.values()), meanings
    assert meanings[0] == {"munmap"}
    assert meanings[REASON["needed"]] == {"needed"}
    shown = page(found)
    for pattern, (name,) in meanings.items():
        assert f'<span class="key p{pattern}"></span>{name}</li>' in shown
    useless = shown.partition('id="useless"')[2].partition("</section>")[0]
    assert {int(at) for at in re.findall(r'class="p(\d+)"', useless)} <= set(REASON.values())


def test_each_pattern_has_a_colour_and_marks_of_its_own() -> None:
    style = (Path(page_file).parent / "template" / "style.css").read_text(encoding="utf-8")
    sets = [
        dict(re.findall(r"--c(\d+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    ]
    assert len(sets) == 3, "light, dark, printed"
    for colours in sets:
        assert {int(at) for at in colours} == set(range(NR_PATTERNS))
        assert len(set(colours.values())) == NR_PATTERNS
    marks = [re.sub(r"--c\d+", "--c", rule) for rule in re.findall(r"^\.p\d+ \{(.*)\}$", style, flags=re.MULTILINE)]
    assert len(marks) == NR_PATTERNS
    # Two are plain: that of the first operation, and that of what is of no class, which no lane has beside it.
    assert len(set(marks)) == NR_PATTERNS - 1
    tiles = re.findall(r'<pattern id="f\d+" (.*?)</pattern>', str(patterns()))
    assert len({re.sub(r"--c\d+", "--c", tile) for tile in tiles}) == NR_PATTERNS - 1


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile(recordings.load(MICRO), kernels=["linux-5.10"], machines=["default"])
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")

    def interrupt(_: Path, _text: str, encoding: str) -> None:
        assert encoding
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_page(found, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text(encoding="utf-8") == "before"
    write_page(found, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(MICRO), "--json", "--machine", "default", "--kernel", "linux-5.10"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["nr_flushes"], plain["nr_told"], plain["kernel"]) == (1012, 314, "linux-6.18")


def test_a_folder_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "no" / "x.html"
    assert main(["report", str(MICRO), "-o", str(path), "--machine", "default"]) == 2
    assert capsys.readouterr().err == f"tlbcore: error: {path.parent}: No such file or directory\n"


BROWSER = find_chromium()
with_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    assert BROWSER is not None
    with Chromium(BROWSER) as found:
        yield found


@with_browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_in_a_browser_it_draws_and_asks_for_nothing(
    browser: Chromium, apache: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    browser.look(width=width, scheme=scheme)
    browser.open(apache)
    assert browser.requested == [apache.resolve().as_uri()]
    assert browser.complaints == []
    assert int(browser.run("document.getElementById('timeline').dataset.marks")) > 10
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    ground, ink = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (brightness(ground) > brightness(ink)) is (scheme == "light")
    picture = tmp_path / "page.png"
    browser.screenshot(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def brightness(color: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", color)[:3])


@with_browser
def test_in_a_browser_the_timeline_zooms(browser: Chromium, apache: Path) -> None:
    browser.look(width=1200)
    browser.open(apache)
    whole = shown(browser)
    browser.run("document.querySelector('[data-do=in]').click()")
    half = shown(browser)
    assert (half[1] - half[0]) * 2 == pytest.approx(whole[1] - whole[0])
    browser.run("document.querySelector('[data-do=all]').click()")
    assert shown(browser) == whole
    browser.run("document.querySelector('[data-storm=\"0\"]').click()")
    begin, end = shown(browser)
    assert whole[0] < begin < end
    browser.run("document.querySelector('[data-do=all]').click()")
    left, top = browser.run("(() => { const b = timeline.getBoundingClientRect(); return [b.left, b.top] })()")
    for kind, x in (("mousePressed", 300), ("mouseMoved", 400), ("mouseMoved", 500), ("mouseReleased", 500)):
        browser.send(
            "Input.dispatchMouseEvent", type=kind, x=left + x, y=top + 60, button="left", buttons=1, clickCount=1
        )
    begin, end = shown(browser)
    assert (end - begin) / (whole[1] - whole[0]) == pytest.approx(200 / (1056 - 54), rel=0.1)
    assert browser.run("document.getElementById('readout').textContent") != ""


def shown(browser: Chromium) -> tuple[float, float]:
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    begin, end = browser.run("[timeline.dataset.from, timeline.dataset.to]")
    return float(begin), float(end)


@with_browser
def test_in_a_browser_the_printed_page_is_light_and_has_no_buttons(browser: Chromium, apache: Path) -> None:
    browser.look(width=800, scheme="dark", media="print")
    browser.open(apache)
    assert brightness(browser.run("getComputedStyle(document.body).backgroundColor")) == 3 * 255
    assert browser.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    browser.look()


@with_browser
def test_in_a_browser_a_page_that_asks_for_something_is_noticed(
    browser: Chromium, apache: Path, tmp_path: Path
) -> None:
    """The twin: the tests above could not pass with a page that loads something."""
    other = tmp_path / "other.html"
    text = apache.read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("<main>", '<main><img src="missing.png">')
    other.write_text(text, encoding="utf-8")
    browser.open(other)
    assert len(browser.requested) == 2
