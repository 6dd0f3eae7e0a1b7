"""The page is complete, stands alone, escapes what it shows, and refuses what it cannot show."""

import copy
import json
import re
import tomllib
from dataclasses import replace
from functools import reduce
from html.parser import HTMLParser

import numpy as np
import pytest
import tomli_w
from PIL import Image

from browsing import show
from twofold import cli, files, results
from twofold.errors import BadRun, BadSetting, UserError
from twofold.records import Score
from twofold.steps import _drawn, report

HOSTILE = "<script>alert(1)</script>"


def make_run(folder, verb, settings, *, finished=None, at="2026-01-02T03:04:05+0000"):
    folder.mkdir(parents=True)
    command = f"twofold {verb} --out {folder}"
    made = {"at": at, "command": command, "python": "3.11.7", "twofold": "0.1.0", "torch": "2.11.0"}
    (folder / "config.toml").write_text(tomli_w.dumps({"verb": verb, "settings": settings, "made": made}))
    if finished is not None:
        files.write_json(folder / "finished.json", finished)
    return folder


def picture(path, side=16, width=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (side, width or side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pretrain_run(folder, *, finished=True, images=4000):
    facts = {"images": images, "parameters": 1_234_567, "seconds": 321.0, "images_per_second": 12.5, "loss": 0.1234}
    settings = {"data": "digits", "images": images, "batch": 64, "lr": 0.002, "precision": "fp32"}
    make_run(folder, "pretrain", settings, finished={**facts, "probe": 0.9} if finished else None)
    records = [{"images": k, "loss": 100 / k, "lr": 1e-3, "seconds": k / 100} for k in range(500, images // 2 + 1, 500)]
    files.append_lines(folder / "metrics.jsonl", [*records, {"images": images // 2, "probe": 0.9}])
    return folder


def sample_run(folder, model):
    settings = {"model": model, "num": 4, "sampler": "ddpm", "steps": 50, "seed": 7}
    make_run(folder, "sample", settings, finished={"num": 4}, at="2026-01-02T03:05:00+0000")
    picture(folder / "grid.png", 34)
    for k in range(4):
        picture(folder / "images" / f"{k:06d}.png")
    about = {"classifier": "support vector machine"}
    found = [Score("sure", 0.815, "generated", 4, (), 0.7, 0.9, about), Score("classes_seen", 9.0, "generated", 4, ())]
    results.append(folder, found)
    return folder


def select_run(folder, model, *, shots=0):
    settings = {"model": model, "data": "digits", "head": "ridge", "shots": shots, "trials": 5}
    make_run(folder, "select", settings, finished={"cells": 2}, at="2026-01-02T03:06:00+0000")
    cell = {"cell": "b8_t50_p2", "block": 8, "name": "up.0.0", "t": 50.0, "sigma": 0.18, "pool": 2, "share": 0.44}
    best = {**cell, "accuracy": 0.987, "loss": 0.1, "n": 269}
    files.append_lines(folder / "map.jsonl", [{**best, "cell": "b8_t0_p2", "t": 0.0, "accuracy": 0.5}, best])
    files.write_json(folder / "choice.json", {**best, "model": model, "data": "digits", "shots": shots})
    results.append(folder, [Score("top1", 0.987, "val", 269)])
    picture(folder / "map.png", 64, 1800)
    return folder


def score(row, model, head, value, *, shots=0, control=False, t=50.0):
    about = {
        "row": row, "control": control, "model": model, "data": "digits", "head": head, "shots": shots,
        "cell": "b8_t50_p2", "block": "up.0.0", "t": t, "sigma": 0.18, "pool": 2, "per_seed": [value - 0.01, value],
    }  # fmt: skip
    return Score("top1", value, "test", 450, (0, 1), value - 0.02, value + 0.02, about)


def probe_run(folder, model, *, shots=0, best=0.976, finished=True, extra=()):
    settings = {"model": model, "data": "digits", "head": ["ridge", "knn"], "shots": shots}
    make_run(folder, "probe", settings, finished={} if finished else None, at="2026-01-02T03:07:00+0000")
    pixels = {**score("pixels", "pixels:8", "ridge", 0.916, shots=shots, control=True).about, "block": "pixels"}
    found = [
        score(model, f"run:{model}", "knn", 0.943, shots=shots),
        score(model, f"run:{model}", "ridge", best, shots=shots),
        Score("top1", 0.916, "test", 450, (0, 1), 0.9, 0.93, {**pixels, "t": None, "sigma": None}),
        score("untrained", f"run:{model}?untrained", "ridge", 0.872, shots=shots, control=True),
        *extra,
    ]
    results.append(folder, found)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One finished run of every kind, and the same with few labels; only read."""
    base = tmp_path_factory.mktemp("machine") / "work"
    model = str(base / "pretrain")
    return (
        pretrain_run(base / "pretrain"), sample_run(base / "sample", model), select_run(base / "select", model),
        select_run(base / "few" / "select", model, shots=10), probe_run(base / "probe", model),
        probe_run(base / "few" / "probe", model, shots=10, best=0.881),
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    """The text of their page."""
    return write(folders, tmp_path_factory.mktemp("out") / "page")


def write(runs, out):
    outcome = report.run(report.Config(tuple(runs), out))
    assert outcome.facts == {"page": str(out / "index.html"), "runs": len(runs)}
    return (out / "index.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Text and start tags of a page; style and script do not count as text."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.inside = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def test_page_shows_every_section_in_order(page):
    seen = Reader(page)
    sections = [about["id"] for tag, about in seen.tags if tag == "section"]
    assert sections == ["samples", "training", "selection", "scores", "leaderboards", "commands"]
    for words in (
        "Diffusion features on digits", "1.2 M parameters", "saw 4,000 images of digits without their labels",
        "reaches 97.6 % top-1 accuracy (95.6 to 99.6) on 450 test images, against 91.6 % from raw pixels and 87.2 % "
        "from the same network untrained (its head is the best on val, theirs the best on test)",
        "with 10 labels a class, pretrain with a knn head",
        "ddpm", "50 noise steps an image", "81.5 %70.0 to 90.0", "classes seen",
        "1,234,567", "5 min", "12 images/s",
        "Chosen for all labels of digits: block 8 up.0.0, t = 50 (σ = 0.18), pool 2.", "98.7 % of 269 val images",
        "optimistic", "Chosen for 10 labels a class", "mean of 5 draws of the labels", "costs 44 % of a forward pass",
        "few/probe", "the image itself", "twofold 0.1.0, torch 2.11.0", "Page written on 20",
    ):  # fmt: skip
        assert words in seen.text, words


def test_section_without_a_run_is_absent(tmp_path):
    seen = Reader(write([sample_run(tmp_path / "only", "diffusers:some/model")], tmp_path / "page"))
    assert [about["id"] for tag, about in seen.tags if tag == "section"] == ["samples", "commands"]
    assert "diffusers:some/model" in seen.text


def test_only_the_images_of_the_run_count(tmp_path):
    run = sample_run(tmp_path / "sample", "m")
    (run / "grid.png").unlink()
    # What a killed writer leaves, and what somebody else put there.
    (run / "images" / f"{files.UNFINISHED}x.png").write_bytes(b"half")
    (run / "images" / "000004.png").write_bytes(b"not of this run, which has four")
    assert "All images that m generated" in Reader(write([run], tmp_path / "page")).text
    assert [path.name for path in _drawn.written(run, 4)] == [f"{k:06d}.png" for k in range(4)]


def test_scores_are_grouped_sorted_and_controls_marked(page):
    tables = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    assert len(tables) == 2
    assert [">all<" in table for table in tables] == [True, False]
    for table in tables:
        rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)[1:]
        values = [float(re.search(r"<strong>([\d.]+)", row)[1]) for row in rows]
        assert values == sorted(values, reverse=True)
        assert len(rows) == 4
        marked = [">control</span>" in row for row in rows]
        assert marked == ["raw pixels" in row or "untrained" in row for row in rows]
        assert sum(marked) == 2
    assert 'title="Each seed, %: 96.6, 97.6"' in tables[0]


def test_the_headline_is_of_a_network_and_beside_its_own_controls(tmp_path):
    """Pixels may be one of the models of a table, and the control of another network is not the same network."""
    others = [score("pixels:4", "pixels:4", "knn", 0.99), score("u", "run:u?untrained", "knn", 0.98, control=True)]
    others[1].about["row"] = "untrained"
    for own in others:
        own.about["val"] = own.value
    run = probe_run(tmp_path / "probe", "m", extra=others)
    summary = Reader(re.search(r'<p class="lede">.*?</p>', write([run], tmp_path / "page"), re.DOTALL)[0]).text
    assert re.search("m with a .* head reaches", summary)
    assert "99.0 % from raw pixels and 87.2 % from the same network untrained" in summary
    results.append(lone := make_run(tmp_path / "lone", "probe", {"data": "digits"}, finished={}), [
        score("m", "run:m", "ridge", 0.9), others[1],
    ])  # fmt: skip
    assert "no control was measured beside it" in write([lone], tmp_path / "other")


def test_few_label_rows_say_what_they_spend(page):
    text = Reader(page).text
    assert text.count("choosing among the cells used the labels of all 269 val images") == 1
    budget = "a head learns from 10 a class of train, and its strength is chosen on at most 10 a class of val."
    assert text.count(budget) == 1 and text.count("chosen with the labels of all val images") == 1
    # Beside the chart of few labels, the second one.
    assert text.count("Top-1 accuracy on test in") == 2
    assert text.rindex("Top-1 accuracy on test in") < text.index(budget)


def test_the_page_says_that_the_untrained_control_is_one_initialisation(page, tmp_path):
    tables = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    assert all("one initialisation" in re.search(r"<caption>.*?</caption>", table)[0] for table in tables)
    assert "one initialisation" in re.search(r"<footer>.*?</footer>", page)[0]
    lone = make_run(tmp_path / "probe", "probe", {"model": "m", "data": "digits"}, finished={})
    results.append(lone, [score("m", "run:m", "ridge", 0.9)])
    assert "one initialisation" not in re.search(r"<caption>.*?</caption>", write([lone], tmp_path / "page"))[0]


def test_control_that_two_runs_measured_alike_is_shown_once(tmp_path):
    twins = [probe_run(tmp_path / name, "run:m") for name in ("a", "b")]
    page = write(twins, tmp_path / "page")
    assert page.count('<tr class="control">') == 2
    assert "m · ridge · a" in page
    assert "m · ridge · b" in page


def test_control_that_one_run_read_anew_and_another_found_stored_is_shown_once(tmp_path):
    """Only the one that reads features knows how fast that was."""
    fast = score("pixels", "pixels:8", "linear", 0.9, control=True)
    timed = replace(fast, about={**fast.about, "images_per_second": 1234.5})
    twins = [probe_run(tmp_path / name, "run:m", extra=[own]) for name, own in (("a", timed), ("b", fast))]
    assert write(twins, tmp_path / "page").count('<tr class="control">') == 3


def test_val_scores_and_training_scores_are_no_test_scores(folders, tmp_path):
    page = write(folders[:4], tmp_path / "page")
    assert 'id="scores"' not in page
    peeked = replace(score("m", "m", "ridge", 0.999), split="val")
    page = write([probe_run(tmp_path / "probe", "m", extra=[peeked])], tmp_path / "other")
    assert "99.9" not in page


def test_page_needs_no_network(page):
    for tag, about in Reader(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if name in about:
                assert about[name].startswith(("data:", "#")), (tag, name, about[name][:80])
    assert "@import" not in page
    assert "url(" not in page
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"^\s*//.*$|base64,[^\"]*", "", page, flags=re.MULTILINE))
    assert "default-src 'none'" in page


def test_every_picture_has_an_alternative_text(page):
    pictures = [about for tag, about in Reader(page).tags if tag == "img"]
    assert len(pictures) == 4
    assert all(about["alt"].strip() and about["src"].startswith("data:image/") for about in pictures)


def test_commands_are_exact_and_in_order_of_time(folders, tmp_path):
    page = write(folders[::-1], tmp_path / "page")
    shown = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert shown[:2] == [f"twofold {name} --out {folders[0].parent}/{name}" for name in ("pretrain", "sample")]
    assert [command.split()[1] for command in shown[2:]] == ["select", "select", "probe", "probe"]


def test_prose_shows_no_path_of_the_machine(page, folders, tmp_path):
    prose = re.sub(r"<pre.*?</pre>|<details>.*?</details>", "", page, flags=re.DOTALL)
    base = folders[0].parent
    assert str(base) in page
    assert str(base) not in prose
    assert base.parent.name not in prose
    page = write([sample_run(tmp_path / "sample", "run:/home/someone/models/mine?untrained")], tmp_path / "other")
    prose = re.sub(r"<pre.*?</pre>|<details>.*?</details>", "", page, flags=re.DOTALL)
    assert "/home/someone" not in prose
    assert "<dd>mine?untrained</dd>" in prose


def test_hostile_names_are_escaped(tmp_path):
    runs = [
        pretrain_run(tmp_path / "<b>bold"), sample_run(tmp_path / "sample", HOSTILE),
        select_run(tmp_path / "select", HOSTILE), probe_run(tmp_path / "probe", HOSTILE),
    ]  # fmt: skip
    page = write(runs, tmp_path / "page")
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert sum(tag == "script" for tag, _ in Reader(page).tags) == 1


def test_unfinished_runs_are_shown_and_marked(tmp_path):
    images = make_run(tmp_path / "sample", "sample", {"model": "m", "num": 9, "sampler": "ddim", "steps": 5, "seed": 0})
    picture(images / "images" / "000000.png")
    runs = [
        pretrain_run(tmp_path / "pretrain", finished=False), images,
        make_run(tmp_path / "select", "select", {"model": "m", "data": "digits", "head": "ridge"}),
        make_run(tmp_path / "fresh", "pretrain", {"data": "digits", "images": 10}),
        make_run(tmp_path / "probe", "probe", {"model": "m", "data": "digits"}),
        probe_run(tmp_path / "half", "m", finished=False),
    ]  # fmt: skip
    seen = Reader(write(runs, tmp_path / "page"))
    text = seen.text
    assert "Unfinished when this page was written: pretrain, sample, select, fresh, probe, half." in text
    assert "2,000 of 4,000" in text
    assert "0 cells of m judged so far" in text
    assert "probe: unfinished, no scores so far" in text
    assert "half: unfinished, 4 scores so far" in text
    assert sum(tag == "img" for tag, _ in seen.tags) == 2


def test_run_given_twice_is_shown_once(tmp_path):
    folder = pretrain_run(tmp_path / "pretrain")
    outcome = report.run(report.Config((folder, folder / ".." / "pretrain"), tmp_path / "page"))
    assert outcome.facts["runs"] == 1


def test_heavy_picture_is_shrunk(tmp_path):
    folder = sample_run(tmp_path / "sample", "m")
    picture(folder / "grid.png", 2000)
    before = (folder / "grid.png").stat().st_size
    page = write([folder], tmp_path / "page")
    assert "data:image/jpeg;base64," in page
    assert len(page) < before


def test_former_page_is_replaced_and_foreign_files_are_kept(tmp_path):
    folder, out = pretrain_run(tmp_path / "pretrain"), tmp_path / "page"
    write([folder], out)
    (out / "notes.txt").write_text("mine")
    (out / "index.html").write_text((out / "index.html").read_text() + "old")
    assert not write([folder], out).endswith("old")
    assert (out / "notes.txt").read_text() == "mine"


def foreign_page(out):
    out.mkdir()
    (out / "index.html").write_text("<p>mine</p>")


def foreign_file(out):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")


def file_instead(out):
    out.write_text("mine")


@pytest.mark.parametrize("prepare", [foreign_page, foreign_file, file_instead])
def test_out_of_others_is_refused_and_untouched(tmp_path, prepare):
    folder, out = pretrain_run(tmp_path / "pretrain"), tmp_path / "page"
    prepare(out)
    before = {p: p.read_text() for p in tmp_path.glob("page/*")}
    with pytest.raises(BadRun, match=r"page.*Give --out"):
        report.run(report.Config((folder,), out))
    assert {p: p.read_text() for p in tmp_path.glob("page/*")} == before


def test_out_below_a_file_is_refused(tmp_path):
    folder = pretrain_run(tmp_path / "pretrain")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="Give --out"):
        report.run(report.Config((folder,), tmp_path / "file" / "page"))


def test_no_run_at_all(tmp_path):
    with pytest.raises(BadSetting, match="report needs RUNS"):
        report.run(report.Config((), tmp_path / "page"))


def test_missing_run(tmp_path):
    with pytest.raises(BadRun, match="does not exist"):
        report.run(report.Config((tmp_path / "nothing",), tmp_path / "page"))
    assert not (tmp_path / "page").exists()


def test_folder_that_is_no_run(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(BadRun, match="is not a run"):
        report.run(report.Config((tmp_path / "other",), tmp_path / "page"))


def test_folder_of_runs_names_them(tmp_path):
    pretrain_run(tmp_path / "all" / "one")
    with pytest.raises(BadRun, match="holds some: one"):
        report.run(report.Config((tmp_path / "all",), tmp_path / "page"))


def test_nothing_to_show(tmp_path):
    folder = make_run(tmp_path / "store", "extract", {"data": "digits"}, finished={})
    with pytest.raises(BadRun, match=r"Nothing to show in store \(extract\)"):
        report.run(report.Config((folder,), tmp_path / "page"))


@pytest.mark.parametrize(
    ("make", "name", "content"),
    [
        (probe_run, "results.jsonl", "{not json\n"),
        (probe_run, "results.jsonl", '{"name": "top1"}\n'),
        (probe_run, "finished.json", "{"),
        (probe_run, "config.toml", "verb = "),
        (probe_run, "config.toml", "settings = {}"),
        (probe_run, "config.toml", 'verb = "probe"\nsettings = 5'),
        (probe_run, "config.toml", 'verb = "probe"\nmade = 5'),
        (select_run, "config.toml", 'verb = "select"\nsettings = {shots = "x"}'),
        (select_run, "map.jsonl", '{"accuracy": "high"}\n'),
        (select_run, "choice.json", '{"block": 1}'),
        (select_run, "map.png", "no picture"),
        (sample_run, "grid.png", ""),
    ],
)
def test_damaged_file_is_named(tmp_path, make, name, content):
    folder = make(tmp_path / "run", "m")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(name)):
        report.run(report.Config((folder,), tmp_path / "page"))


def places(value, at=()):
    """The way to every value in a JSON or TOML document; the first of a list stands for all."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [at, *(place for name, one in inner for place in places(one, (*at, name)))]


def changed(document, at, value):
    if not at:
        return value
    copied = copy.deepcopy(document)
    *way, last = at
    reduce(lambda inside, name: inside[name], way, copied)[last] = value
    return copied


def parsed(file):
    text = file.read_text()
    if file.suffix == ".toml":
        return tomllib.loads(text)
    return json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def written(file, document):
    if file.suffix == ".toml":
        return tomli_w.dumps(document)
    lines = document if isinstance(document, list) and file.suffix == ".jsonl" else [document]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("make", [pretrain_run, sample_run, select_run, probe_run])
@pytest.mark.parametrize("value", ["~nobody/x", 10**400, float("nan"), [None]], ids=lambda v: str(v)[:9])
@pytest.mark.filterwarnings("ignore")  # pictures of strange numbers
def test_no_strange_value_in_any_file_is_a_traceback(tmp_path, make, value):
    folder = make(tmp_path / "run", *([] if make is pretrain_run else ["m"]))
    for file in (f for f in folder.iterdir() if f.suffix in (".json", ".jsonl", ".toml")):
        kept, document = file.read_text(), parsed(file)
        for at in places(document):
            try:
                text = written(file, changed(document, at, value))
            except (TypeError, AttributeError):
                continue  # TOML has no word for it
            file.write_text(text)
            try:
                report.run(report.Config((folder,), tmp_path / "page"))
            except UserError as error:
                named = file.name in str(error) or str(error).startswith("Nothing to show in run")
                assert named and "\n" not in str(error), (file.name, at)
        file.write_text(kept)


def test_command_line(folders, tmp_path, capsys):
    assert cli.run(["report", *map(str, folders), "--out", str(tmp_path / "page"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(tmp_path / "page" / "index.html"), "runs": 6}
    assert cli.run(["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "page")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("twofold: There is no run ")
    assert told.err.count("\n") == 1
    assert cli.run(["report", "--out", str(tmp_path / "page")]) == 2


def column(browser, name):
    """Texts of one column of the first leaderboard, top to bottom."""
    script = """
        const table = document.querySelector(".sortable");
        const names = [...table.tHead.rows[0].cells].map((c) => c.textContent.trim());
        return [...table.tBodies[0].rows].map((row) => row.cells[names.indexOf(arguments[0])].textContent.trim());
    """
    return browser.execute_script(script, name)


@pytest.mark.browser
def test_page_in_a_browser(browser, folders, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    long = score("m" * 300, "m" * 300, "h" * 80, 0.5)
    write([*folders, probe_run(tmp_path / "long", "m" * 200, extra=[long])], tmp_path / "page")
    for width in (375, 1280):
        show(browser, tmp_path / "page" / "index.html", width)
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for details in browser.find_elements(By.TAG_NAME, "details"):
            browser.execute_script("arguments[0].open = true", details)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        loaded = "return [...document.images].every((i) => i.complete && i.naturalWidth > 0)"
        assert browser.execute_script(loaded)

    enlarge = browser.find_element(By.CLASS_NAME, "enlarge")
    enlarge.click()
    assert enlarge.get_attribute("aria-pressed") == "true"
    assert browser.execute_script("return document.querySelector('#selection img').clientWidth") == 1200
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280

    values = [float(text.partition(".")[0]) for text in column(browser, "Accuracy, %")]
    assert values == sorted(values, reverse=True)
    buttons = {b.text: b for b in browser.find_element(By.CLASS_NAME, "sortable").find_elements(By.TAG_NAME, "button")}
    buttons["Head"].click()
    heads = column(browser, "Head")
    assert heads == sorted(heads)
    assert heads != column(browser, "Features")
    buttons["Head"].click()
    assert column(browser, "Head") == sorted(heads, reverse=True)
    buttons["Accuracy, %"].send_keys(Keys.ENTER)
    buttons["Accuracy, %"].send_keys(Keys.ENTER)
    values = [float(text.partition(".")[0]) for text in column(browser, "Accuracy, %")]
    assert values == sorted(values)
    heading = browser.find_element(By.CSS_SELECTOR, ".sortable th[aria-sort]")
    assert (heading.text, heading.get_attribute("aria-sort")) == ("Accuracy, %", "ascending")

    command = browser.find_element(By.CSS_SELECTOR, ".commands pre")
    assert command.text == f"twofold pretrain --out {folders[0]}"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
