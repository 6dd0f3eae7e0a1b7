"""Published numbers are the papers', a ledger takes what its run can prove, and its pages work as plain files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browsing import complaints, show
from twofold import cli, files, results, runs
from twofold.errors import BadRun
from twofold.records import Score
from twofold.steps import _boards, _ledger, _published, _site, report

Command = Callable[..., tuple[int, str, str]]
P1, P2 = "arXiv 2307.08702", "arXiv 2311.17921"


# Published numbers: typed here by hand once more, from the papers' tables and figures.


def found(paper: str, data: str, method: str, head: str, **where: str) -> list[float]:
    return [
        round(100 * line.top1, 2) for line in _published.load()
        if line.top1 is not None and (line.paper, line.data, line.method, line.head) == (paper, data, method, head)
        and all(getattr(line, name) == value for name, value in where.items())
    ]  # fmt: skip


GD = "Guided Diffusion (GD)"


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ((P1, "imagenet", "BigBiGAN", "linear"), [60.8]),
        ((P1, "imagenet", "U-Net Encoder, supervised", ""), [64.32]),
        ((P1, "imagenet", GD, "attention"), [71.89]),
        ((P2, "imagenet", "MAGE", "linear"), [78.9]),
        ((P2, "imagenet", "MAE", "linear"), [73.5]),
        ((P2, "imagenet", GD, "difffeed"), [77.0]),
        ((P2, "imagenet", GD, "difformer"), [76.0]),
        ((P1, "imagenet50", GD, "attention"), [91.66, 91.57, 92.01, 92.26, 92.7]),
        ((P1, "imagenet50", GD, "linear"), [87.21, 89.41, 89.58, 88.28]),
        ((P1, "aircraft", GD, "cnn"), [54.21]),
        ((P1, "flowers", "SwAV", "linear"), [91.76]),
        ((P1, "nabirds", GD, "attention"), [22.05]),
        ((P2, "cars", GD, "difffeed"), [82.7]),
        ((P2, "dogs", GD, "difformer"), [81.3]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_published_numbers_are_those_of_the_papers(line: tuple[str, str, str, str], values: list[float]) -> None:
    assert found(*line) == values


def test_published_ablations_are_those_of_the_figures() -> None:
    def at(data: str, **where: str) -> list[float]:
        return found(P1, data, GD, "linear", **where)

    assert 49.23 in at("imagenet", t="10", block="19") and 34.67 in at("imagenet", t="500", block="19")
    assert 47.22 in at("imagenet", t="150", block="30") and 11.08 in at("imagenet", t="90", block="6")
    assert 60.08 in at("imagenet", block="24", pool="8")
    assert at("cub", block="19", t="150", pool="4") == [34.91]
    assert at("cub", block="24", t="500", pool="8") == [15.48]


def test_published_lines_are_whole() -> None:
    lines = _published.load()
    # 3.1 to 3.7 of the facts: 5 + 10 + 29 (7 + 14 + 8) + 21 + 36 + 36 + 48.
    assert len(lines) == 185
    assert (
        len({(line.paper, line.place, line.data, line.method, line.head, line.where, line.top1) for line in lines})
        == 185
    )
    assert {line.paper for line in lines} == {P1, P2} and {line.read for line in lines} == set(_published.READ)
    assert all(line.top1 is not None and 0.04 < line.top1 < 0.93 and line.place for line in lines)
    assert {line.fid for line in lines} == {None, 26.21, 28.54, 9.1}
    generated = [e for e in _boards.reported() if e.task == "generation"]
    assert {(e.method, e.values["fid"].value) for e in generated} == {("BigBiGAN", 28.54), (GD, 26.21), ("MAGE", 9.1)}
    assert all(e.kind == "reported" and e.source.startswith("arXiv") for e in generated)


# Boards.


def entry(task: str = "classification", **values: float) -> _boards.Entry:
    return _boards.Entry(task, "d", "m", "measured", {name: _boards.Value(v) for name, v in values.items()})


def test_accuracies_go_down_distances_go_up_and_what_has_none_comes_last() -> None:
    own = [entry(top1=0.5), entry(top1=0.7), entry(fid=3.0)]
    far = [entry("generation", fid=v) for v in (9.0, 2.0)]
    classified, generated = _boards.boards([*own, *far])
    assert [e.values.get("top1") for e in classified.entries] == [_boards.Value(0.7), _boards.Value(0.5), None]
    assert [e.values["fid"].value for e in generated.entries] == [2.0, 9.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(552_814_086, "553\u00a0M"), (639.2e9, "639\u00a0G"), (1_234, "1.2\u00a0k"), (7.25, "7.2"), (None, "")],
)
def test_large_numbers_in_words(value: float | None, text: str) -> None:
    assert _boards.amount(value) == text


def test_values_keep_the_digits_that_a_paper_gives() -> None:
    given = [_boards.value_text("top1", _boards.Value(v)) for v in (0.7, 0.6384, 1.0)]
    assert given == [("70.0", ""), ("63.84", ""), ("100.0", "")]
    assert _boards.value_text("top1", _boards.Value(0.7, 0.65, 0.75)) == ("70.0", "65.0 to 75.0")


# Runs to submit.


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of probe; only copied."""
    out = tmp_path_factory.mktemp("probed") / "probe"
    line = ["probe", "--model", "pixels:8", "--data", "digits", "--block", "1", "--pool", "8", "--head", "ridge,knn"]
    assert cli.run([*line, "--out", str(out), "--seeds", "2", "--quiet"]) == 0
    return out


def distance_run(folder: Path, *scores: Score) -> Path:
    from twofold.steps import blocks

    with runs.opened(folder, "fid", blocks.Config("pixels:8"), {"images": "abc"}) as run:
        results.append(folder, scores)
        run.finish({"done": True})
    return folder


def distance(name: str, value: float, images: Path) -> Score:
    """As a run of `fid` writes it."""
    about = {"a": str(images), "b": "digits@test", "a_n": 500, "b_n": 450, "features": "inception", "block": "pool"}
    return Score(name, value, "all", 500, (), value - 1, value + 1, about | {"measure": "fd"})


def sampled(folder: Path) -> Path:
    """As a run of `sample` looks like."""
    folder.mkdir()
    (folder / "config.toml").write_text('verb = "sample"\n[settings]\nmodel = "run:net"\n')
    (folder / "images").mkdir()
    return folder


@pytest.fixture
def run_(probed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(probed, tmp_path / "run")


def refused(folder: Path, says: str) -> None:
    ledger = folder.parent / "ledger"
    with pytest.raises(BadRun, match=says) as refusal:
        report.run(report.Config(ledger=ledger, submit=(folder,)))
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)
    assert not ledger.exists()


def test_a_run_is_submitted_once(run_: Path, tmp_path: Path, command: Command) -> None:
    asked = ("report", "--submit", run_, "--ledger", tmp_path / "ledger", "--json")
    code, out, err = command(*asked)
    assert code == 0 and json.loads(out)["submitted"] == [str(run_)], err
    (path,) = (tmp_path / "ledger").iterdir()
    before, kept = path.read_bytes(), json.loads(path.read_text())
    assert kept["inputs"] == runs.read_config(run_)["inputs"] and len(kept["inputs"]) == 2
    assert {score["about"]["head"] for score in kept["scores"]} == {"ridge", "knn"}
    assert json.loads(command(*asked)[1])["submitted"] == [] and path.read_bytes() == before


def test_an_unfinished_run_is_refused(run_: Path) -> None:
    (run_ / "finished.json").unlink()
    refused(run_, "is not finished")


def test_edited_scores_are_refused(run_: Path) -> None:
    path = run_ / "results.jsonl"
    path.write_text(path.read_text().replace('"value": 0.9', '"value": 0.99', 1))
    refused(run_, "was changed since")


def test_edited_scores_with_an_edited_hash_are_refused(run_: Path) -> None:
    scores = results.read(run_)
    (run_ / "results.jsonl").unlink()
    results.append(run_, [replace(scores[0], value=0.999), *scores[1:]])
    runs.seal(run_)
    refused(run_, "says something else than results.jsonl")


def test_scores_without_their_predictions_are_refused(run_: Path) -> None:
    shutil.rmtree(run_ / "predictions")
    refused(run_, "lacks predictions/")


def test_a_run_without_a_hash_of_its_scores_is_refused(run_: Path) -> None:
    (run_ / "results.sha256").unlink()
    refused(run_, "notes no hash")


def test_a_run_that_does_not_say_what_it_is_made_from_is_refused(run_: Path) -> None:
    config = run_ / "config.toml"
    config.write_text(re.sub(r'\ndata = "[0-9a-f]{16}"', "", config.read_text()))
    refused(run_, "which data it was made from")


@pytest.mark.parametrize(
    ("change", "says"), [({"low": None}, "an interval"), ({"seeds": ()}, "seeds"), ({"n": 0}, " n")]
)
def test_a_score_that_does_not_say_how_sure_it_is_is_refused(run_: Path, change: dict[str, Any], says: str) -> None:
    scores = results.read(run_)
    (run_ / "results.jsonl").unlink()
    results.append(run_, [replace(scores[0], **change), *scores[1:]])
    runs.seal(run_)
    refused(run_, f"the score top1 lacks {says.strip()}")


def test_scores_of_val_are_refused(tmp_path: Path, tiny_run: Path) -> None:
    refused(distance_run(tmp_path / "other", Score("top1", 0.9, "val", 10)), "no score on test")
    refused(tiny_run, "no score on test")


def test_of_several_runs_one_that_is_refused_keeps_all_out(run_: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(run_, tmp_path / "broken")
    (broken / "finished.json").unlink()
    with pytest.raises(BadRun):
        report.run(report.Config(ledger=tmp_path / "ledger", submit=(run_, broken)))
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--submit", "RUN"), "--ledger DIR"),
        (("--submit", "RUN", "RUN", "--ledger", "L"), "no other runs. Give several with commas"),
        (("RUN", "--ledger", "L", "--out", "O"), "runs or a ledger"),
        (("--ledger", "nowhere", "--out", "O"), "There is no ledger nowhere"),
        (("--ledger", "L"), "--out"),
        ((), "--out"),
    ],
)
def test_what_cannot_be_asked_together_is_one_line(
    flags: tuple[str, ...], says: str, run_: Path, tmp_path: Path, command: Command
) -> None:
    named = {"RUN": str(run_), "L": str(tmp_path / "l"), "O": str(tmp_path / "o")}
    code, out, err = command("report", *(named.get(flag, flag) for flag in flags))
    assert code == 2 and out == "" and says in err and err.count("\n") == 1


def test_a_damaged_entry_is_named(run_: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    _ledger.submit(run_, ledger)
    (path,) = ledger.iterdir()
    for text in ("{", "{}", json.dumps(json.loads(path.read_text()) | {"scores": [1]})):
        path.write_text(text)
        with pytest.raises(BadRun, match=path.name):
            report.run(report.Config(ledger=ledger, out=tmp_path / "site"))


# Pages.


class Links(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.hrefs += [str(about["href"])] if "href" in about else []
        self.ids |= {str(about["id"])} if "id" in about else set()


@pytest.fixture(scope="module")
def site(probed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a ledger with a probe, a distance and a name that means harm."""
    base = tmp_path_factory.mktemp("site")
    hostile = shutil.copytree(probed, base / "<b>bold")
    images = sampled(base / "samples")
    far = distance_run(base / "far", distance("fid", 12.5, images), distance("fd_dino", 300.25, images / "images"),
                       replace(distance("recall", 0.5, images), split="test"))  # fmt: skip
    plain = shutil.copytree(probed, base / "plain")
    scores = results.read(plain)
    (plain / "results.jsonl").unlink()
    results.append(plain, [replace(s, about=s.about | {"model": "run:net"}) for s in scores])
    runs.seal(plain)
    for run in (hostile, far, plain):
        report.run(report.Config(ledger=base / "ledger", submit=(run,), out=base / "site"))
    shutil.rmtree(images)  # what was behind a distance is known from the ledger alone
    report.run(report.Config(ledger=base / "ledger", out=base / "site"))
    return base / "site"


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    reached = {site / "index.html"}
    for page in pages:
        for href in Links(page.read_text()).hrefs:
            if href.startswith("data:"):
                continue
            assert not href.startswith(("/", "http", "file")), href
            target = (page.parent / href).resolve()
            assert target.is_file() and target.is_relative_to(site.resolve()), (page, href)
            reached.add(target)
    assert reached == {page.resolve() for page in pages}
    kinds = {page.parent.name for page in pages}
    assert kinds == {"site", "tasks", "data", "methods", "runs"}


def test_the_site_shows_what_was_measured_beside_what_is_reported(site: Path) -> None:
    digits, cub = ((site / "data" / f"{name}.html").read_text() for name in ("digits", "cub"))
    assert "12.50" in digits and "11.50 to 13.50" in digits and "FD dino" in digits and "300.25" in digits
    assert digits.count('data-kind="measured"') == 5 and "reported" not in re.findall(r'data-kind="(\w+)"', digits)
    assert re.findall(r'data-kind="(\w+)"', cub) == ["reported"] * 60
    assert "arXiv 2307.08702, CUB grid figure" in cub
    # Of a network's accuracy the distance stands beside it.
    board = re.search(r"<h2>Classification</h2>.*?</section>", digits, re.DOTALL)
    assert board and board[0].count("12.50") == 2 and "FID" in board[0]


def test_the_site_escapes_names_and_shows_command_and_hashes(site: Path) -> None:
    texts = [page.read_text() for page in site.rglob("*.html")]
    assert not any("<b>bold" in text for text in texts) and any("&lt;b&gt;bold" in text for text in texts)
    runs_ = [page.read_text() for page in (site / "runs").iterdir()]
    assert any("twofold" in text or "pytest" in text for text in runs_) and all("hash of" in text for text in runs_)
    assert all("default-src 'none'" in text and "://" not in text.replace("https://", "x://") for text in texts)


def test_a_page_that_is_gone_goes_from_the_site_and_files_of_others_stay(run_: Path, tmp_path: Path) -> None:
    out, ledger = tmp_path / "site", tmp_path / "ledger"
    report.run(report.Config(ledger=ledger, submit=(run_,), out=out))
    (out / "runs" / "notes.html").write_text("mine")
    (old,) = (p for p in (out / "runs").iterdir() if p.name != "notes.html")
    second = shutil.copytree(run_, tmp_path / "second")
    runs.seal(second)
    config = second / "config.toml"
    config.write_text(config.read_text().replace("[inputs]\n", '[inputs]\nmore = "x"\n'))
    report.run(report.Config(ledger=ledger, submit=(second,)))
    (ledger / f"{old.stem}.json").unlink()
    report.run(report.Config(ledger=ledger, out=out))
    assert not old.exists() and (out / "runs" / "notes.html").read_text() == "mine"


def test_a_site_that_was_stopped_is_made_again_and_files_of_others_are_not(run_: Path, tmp_path: Path) -> None:
    out, ledger = tmp_path / "site", tmp_path / "ledger"
    report.run(report.Config(ledger=ledger, submit=(run_,), out=out))
    (out / "index.html").unlink()  # the last that is written
    (out / "runs" / f"{files.UNFINISHED}x.html").touch()
    report.run(report.Config(ledger=ledger, out=out))
    (out / "index.html").unlink()
    (out / "runs" / "notes.html").write_text("mine")
    with pytest.raises(BadRun, match="no page of"):
        report.run(report.Config(ledger=ledger, out=out))


def test_two_networks_of_one_name_are_two_methods(run_: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    _ledger.submit(run_, ledger)
    config = run_ / "config.toml"
    config.write_text(re.sub(r'(\[inputs\]\nmodel = ")[0-9a-f]', r"\1x", config.read_text()))
    assert _ledger.submit(run_, ledger)
    shown = _ledger.alone(_ledger.entries(ledger))
    assert len({run.name for run in shown}) == 2
    pages = {page.path: page for page in _site.pages(shown)}
    own = [path for path in pages if re.fullmatch(r"methods/raw_pixels_\w+_?-\w+\.html", path)]
    assert len(own) == 2
    for run in shown:
        ((_, board),) = pages[f"runs/{run.folder.stem}.html"].boards
        assert {f"methods/{e.slug}.html" for e in board.entries if e.kind == "measured"} <= set(own)


def test_two_data_sets_of_one_name_are_two_boards(run_: Path, tmp_path: Path) -> None:
    """Two people's `folder:photos`; of `cub` everybody has the same."""
    ledger, scores = tmp_path / "ledger", results.read(run_)
    for data, hashes in (("folder:/{}/photos", "ab"), ("cub:/{}", "cd")):
        for told in hashes:
            own = shutil.copytree(run_, tmp_path / told)
            (own / "results.jsonl").unlink()
            results.append(own, [replace(s, about=s.about | {"data": data.format(told)}) for s in scores])
            runs.seal(own)
            config = own / "config.toml"
            config.write_text(re.sub(r'(\ndata = ")[0-9a-f]{16}"', rf'\g<1>{told * 16}"', config.read_text()))
            assert _ledger.submit(own, ledger)
    report.run(report.Config(ledger=ledger, out=tmp_path / "site"))
    text = (tmp_path / "site" / "index.html").read_text()
    assert "folder:photos (aaaaaa)" in text and "folder:photos (bbbbbb)" in text and "cub (" not in text
    report.run(report.Config((tmp_path / "a", tmp_path / "b"), tmp_path / "page"))
    text = (tmp_path / "page" / "index.html").read_text()
    assert "folder:photos (aaaaaa), all labels" in text and "folder:photos (bbbbbb), all labels" in text


def test_a_distance_stands_beside_the_network_that_generated_not_one_of_its_name(run_: Path, tmp_path: Path) -> None:
    """Two people's `run:net` in one ledger, and the distance of one of them."""
    ledger = tmp_path / "ledger"
    scores = results.read(run_)
    (run_ / "results.jsonl").unlink()
    results.append(run_, [replace(s, about=s.about | {"model": "run:net"}) for s in scores])
    runs.seal(run_)
    images = sampled(tmp_path / "samples")
    told = (images / "config.toml").read_text()
    (images / "config.toml").write_text(f'{told}[inputs]\nmodel = "abcdef0123"\n')
    far = distance_run(tmp_path / "far", distance("fid", 12.5, images))
    for network in ("abcdef0123", "9876543210"):
        config = run_ / "config.toml"
        config.write_text(re.sub(r'(\[inputs\]\nmodel = ").*"', rf'\g<1>{network}"', config.read_text()))
        assert _ledger.submit(run_, ledger)
    assert _ledger.submit(far, ledger)
    shutil.rmtree(images)
    shown = _ledger.alone(_ledger.entries(ledger))
    own = {e.run: e for e in _boards.measured(shown) if e.task == "classification" and e.kind == "measured"}
    networks = {run.name: (run.finished or {})["inputs"]["model"] for run in shown if run.verb == "probe"}
    assert {networks[name]: "fid" in entry.values for name, entry in own.items()} == {
        "abcdef0123": True, "9876543210": False,
    }  # fmt: skip
    pages = {page.title: page for page in _site.pages(shown) if page.path.startswith("methods/")}
    tasks = {title: {board.task for _, board in page.boards} for title, page in pages.items() if "net (" in title}
    assert tasks == {"net (abcdef)": {"classification", "generation"}, "net (987654)": {"classification"}}


def test_transfer_is_shown_and_submitted_whole(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "table"
    asked = ("--models", "pixels:8", "--data", "digits", "--head", "ridge,knn", "--blocks", 1, "--controls", "none")
    assert command("transfer", *asked, "--out", out, "--quiet")[0] == 0
    page = report.run(report.Config((out,), tmp_path / "page")).facts
    assert page["runs"] == 3
    code, told, _ = command("report", "--submit", out, "--ledger", tmp_path / "ledger", "--json")
    assert code == 0 and {Path(p).name for p in json.loads(told)["submitted"]} == {"ridge", "knn"}


def test_links_of_a_page_lead_to_the_command_of_the_run(probed: Path, tmp_path: Path) -> None:
    report.run(report.Config((probed,), tmp_path / "page"))
    links = Links((tmp_path / "page" / "index.html").read_text())
    anchors = {href.removeprefix("#") for href in links.hrefs if href.startswith("#run-")}
    assert anchors and anchors <= links.ids


@pytest.mark.browser
def test_the_site_in_a_browser(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.by import By

    for page in sorted(site.rglob("*.html")):
        show(browser, page, 390)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390, page
    show(browser, site / "data" / "imagenet.html", 1280)
    board = browser.find_element(By.CSS_SELECTOR, ".board")

    def shown(column: str) -> list[str]:
        script = """
            const table = arguments[0].querySelector("table");
            const at = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.trim() === arguments[1]);
            return [...table.tBodies[0].rows].filter((r) => r.offsetParent !== null)
                .map((r) => r.cells[at].textContent.trim());
        """
        found_ = browser.execute_script(script, board, column)
        assert isinstance(found_, list)
        return found_

    assert shown("Accuracy, %")[0] == "78.9" and len(shown("Method")) == 44
    board.find_element(By.CSS_SELECTOR, "input").send_keys("difffeed")
    assert shown("Head") == ["difffeed"] and board.find_element(By.TAG_NAME, "output").text == "1 of 44 rows"
    board.find_element(By.CSS_SELECTOR, "input").clear()
    board.find_element(By.CSS_SELECTOR, "input").send_keys("2311 linear")
    assert len(shown("Head")) == 6
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
                           board.find_element(By.CSS_SELECTOR, "input"))  # fmt: skip
    # What has no FID stays last whichever way the column is sorted.
    button = next(b for b in board.find_elements(By.CSS_SELECTOR, "th button") if b.text.strip("↕↑↓ ") == "FID")
    for _ in range(2):
        button.click()
        column = shown("FID")
        known = [float(text) for text in column if text]
        assert len(known) == 10 and all(column[: len(known)]) and not any(column[len(known) :])
        assert known in (sorted(known), sorted(known, reverse=True))
    button = next(b for b in board.find_elements(By.CSS_SELECTOR, "th button") if b.text.strip("↕↑↓ ") == "Read at")
    for _ in range(2):
        button.click()
        told = [bool(text) for text in shown("Read at")]
        assert told == sorted(told, reverse=True) and not all(told)

    # Open a run from its board, and see its command.
    show(browser, site / "data" / "digits.html", 1280)
    board = browser.find_element(By.CSS_SELECTOR, ".board")
    assert not board.find_elements(By.TAG_NAME, "select")
    browser.execute_script("arguments[0].click()", board.find_element(By.CSS_SELECTOR, ".source a"))
    assert "/runs/" in browser.current_url and browser.find_element(By.TAG_NAME, "pre").text
    assert complaints(browser) == []


@pytest.mark.browser
def test_a_board_of_a_report_filters_by_kind(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    line = ["probe", "--model", "pixels:8", "--data", "digits", "--block", "1", "--head", "ridge", "--quiet"]
    assert cli.run([*line, "--out", str(tmp_path / "run")]) == 0
    scores = results.read(tmp_path / "run")
    about = scores[0].about
    (tmp_path / "run" / "results.jsonl").unlink()
    results.append(tmp_path / "run", [
        replace(scores[0], about=about | {"data": "cub:somewhere"}),
        replace(scores[0], value=0.1, about=about | {"data": "cub:somewhere", "row": "pixels", "control": True}),
    ])  # fmt: skip
    report.run(report.Config((tmp_path / "run",), tmp_path / "page"))
    show(browser, tmp_path / "page" / "index.html", 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    board = browser.find_element(By.CSS_SELECTOR, ".board")
    for kind, count in (("reported", 60), ("measured", 1), ("controls", 1), ("all rows", 62)):
        Select(board.find_element(By.TAG_NAME, "select")).select_by_visible_text(kind)
        assert board.find_element(By.TAG_NAME, "output").text == f"{count} of 62 rows"
    assert complaints(browser) == []
