"""`compare`: the matrices are right, read once, resumable, and mistakes are one line before any work."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twofold import results, store
from twofold.analyses import cka
from twofold.datasets import base as datasets
from twofold.plots import similarities
from twofold.steps import _cells, _fill, _sides, compare
from twofold.steps._part import Drawn

Command = Callable[..., tuple[int, str, str]]
WIDE = ("--t", "30,300", "--pool", "1,2", "--blocks", "mid,conv_in,up.0.0,up.0.1", "--rows", "60", "--minibatch", "12")


@pytest.fixture(scope="module")
def compared(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from twofold import cli

    out = tmp_path_factory.mktemp("compare") / "run"
    arguments = ["compare", "--models", str(tiny_run), "--data", "digits", "--out", str(out), "--quiet"]
    assert cli.run([*arguments, *WIDE, "--controls", "untrained"]) == 0
    return out


def numbers(run: Path, name: str = "cka") -> dict[tuple[str, str], float]:
    with np.load(run / f"{name}.npz") as held:
        return {
            (r, c): float(held["cka"][i, j]) for i, r in enumerate(held["rows"]) for j, c in enumerate(held["columns"])
        }


def refused(answer: tuple[int, str, str], *says: str) -> None:
    code, out, err = answer
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
    for words in says:
        assert words in err


def by_hand(run: Path, identity: str, cell: str) -> list[np.ndarray]:
    """A cell under both noise samples of one network."""
    from twofold.records import Cell

    opened = [store.load(folder) for folder in (run / "features").iterdir()]
    own = sorted((s for s in opened if s.key["backbone"] == identity), key=lambda s: s.key["seed"])
    return [s.read("val", Cell.parse(cell)).x for s in own]


def test_every_number_is_that_of_two_tables(compared: Path, tiny_run: Path) -> None:
    from twofold.backbones import base as backbones

    found, name = numbers(compared), backbones.load(str(tiny_run)).identity
    cells = sorted({row for row, _ in found})
    tables = {cell: by_hand(compared, name, cell) for cell in cells}
    assert all(len(pair) == 2 and len(pair[0]) == 60 for pair in tables.values())
    for (row, column), value in found.items():
        expected = cka.of_tables([tables[row][0], tables[column][1]], 12).cka()[0, 1]
        assert value == pytest.approx(expected, abs=1e-9)
    with (compared / "cka.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found) and float(lines[0]["cka"]) == pytest.approx(next(iter(found.values())), abs=1e-6)


def test_independent_noise_makes_the_diagonal_less_than_1_and_shared_noise_does_not(
    compared: Path, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    found = numbers(compared)
    own = [value for (row, column), value in found.items() if row == column]
    assert max(own) < 0.999
    shared = ("compare", "--models", tiny_run, "--data", "digits", "--out", tmp_path / "run", "--noise", "shared")
    assert command(*shared, *WIDE, "--quiet")[0] == 0
    again = numbers(tmp_path / "run")
    assert all(value == 1 for (row, column), value in again.items() if row == column)
    assert all(value == again[column, row] for (row, column), value in again.items())
    assert len(list((tmp_path / "run" / "features").iterdir())) == 1


def test_scores_and_figures(compared: Path) -> None:
    scores = results.read(compared)
    facts = json.loads((compared / "finished.json").read_text())
    names = ("cka_mean", "cka_same", "cka_mirrored", "cka_unmirrored", "cka_mirror_gain", "cka_pool_change")
    assert {s.name for s in scores} == set(names)
    means = {s.about["pool"]: s.value for s in reversed(scores) if s.name == "cka_mean" and not s.about["control"]}
    changes = {s.about["pool"]: s.value for s in scores if s.name == "cka_pool_change" and not s.about["control"]}
    assert changes == {pool: pytest.approx(mean - means[1]) for pool, mean in means.items() if pool != 1}
    assert all(s.split == "val" and s.n == 60 and s.low is not None and s.low < s.value < s.high for s in scores)
    found = numbers(compared)
    first = [v for (row, column), v in found.items() if row.endswith("t30_p1") and column.endswith("t30_p1")]
    assert scores[0].value == pytest.approx(np.mean(first), abs=1e-9)
    kinds = ("blocks", "steps", "pools")
    figures = [f"{name}-{kind}.png" for name in ("cka", "cka-untrained") for kind in kinds]
    assert [Path(path).name for path in facts["pictures"]] == figures
    for name in figures:
        with Image.open(compared / name) as picture:
            assert picture.width > 500 and len(picture.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 20
        assert (compared / name).with_suffix(".svg").read_text().startswith("<?xml")


def test_again_is_done_already_and_other_settings_are_refused(compared: Path, tiny_run: Path, command: Command) -> None:
    same = ("compare", "--models", tiny_run, "--data", "digits", "--out", compared, *WIDE, "--controls", "untrained")
    code, out, _ = command(*same)
    assert code == 0 and "is done already" in out
    refused(command(*same, "--rows", "61"), "rows is 60 there, 61 here")


def test_a_killed_run_goes_on_with_the_features_that_are_there(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    asked = ("compare", "--models", tiny_run, "--data", "digits", "--out", tmp_path / "run", "--rows", 20, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(_sides, "similar", killed)
        assert command(*asked)[0] == 130
    code, out, _ = command(*asked)
    assert code == 0 and json.loads(out)["passes"] == 0


def test_two_networks_of_different_kinds(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    models = f"{tiny_run},pixels:8"
    asked = ("compare", "--models", models, "--data", "digits", "--out", tmp_path / "run", "--other-blocks", "all")
    code, out, _ = command(*asked, "--sigma", "0.1,0.8", "--rows", 40, "--json")
    facts = json.loads(out)
    assert code == 0 and len(facts["matches"]) == 1 and not facts["same"]
    assert 1 <= facts["matches"][0]["best"] <= 9 and [m["steps"][1] for m in facts["means"]] == [None, None]
    found = numbers(tmp_path / "run")
    t = facts["means"][0]["steps"][0]
    best = max(found[row, column] for row, column in found if f"_t{t:g}_" in row)
    assert facts["matches"][0]["cka"] == pytest.approx(best, abs=1e-4)


def test_an_axis_says_whose_blocks_it_has() -> None:
    given = ("pixels:8", "pixels", "run:a/b?untrained", "timm:resnet50@w/x.pt")
    assert [compare._short(name) for name in given] == ["pixels:8", "pixels", "b, untrained", "resnet50"]


def test_features_of_an_encoder_serve_as_rows_and_as_columns(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    asked = ("--data", "digits", "--rows", 20, "--other-blocks", "all", "--features", tmp_path / "features", "--json")
    assert command("compare", "--models", f"{tiny_run},pixels:8", "--out", tmp_path / "a", *asked)[0] == 0
    code, out, err = command("compare", "--models", f"pixels:8,{tiny_run}", "--out", tmp_path / "b", *asked)
    assert code == 0, err
    assert json.loads(out)["passes"] == 20  # of the network under the other noise


def test_an_encoder_against_itself_is_read_once(tmp_path: Path, command: Command) -> None:
    asked = ("compare", "--models", "pixels:8", "--data", "digits", "--out", tmp_path / "run", "--pool", "1,4,8")
    code, out, _ = command(*asked, "--json")
    assert code == 0 and json.loads(out)["passes"] == 269
    assert numbers(tmp_path / "run")["b1_p4", "b1_p4"] == 1


def test_every_chunk_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twofold.backbones import base as backbones

    monkeypatch.setattr(store, "ROWS_PER_CHUNK", 64)
    dataset, backbone = datasets.load("digits"), backbones.load("pixels:8")
    rows = Drawn(dataset, "train", 300, 0)
    reading = _fill.Reading()
    cells = tuple(_cells.asked(backbone, ("all",), [None], (1, 2, 8)))
    side = _sides.Side("pixels:8", backbone, cells, reading)
    opened, _ = side.filled(str(tmp_path), rows, "train")
    seen: list[tuple[str, int]] = []
    read = opened.arrays.read

    def noted(path: str, number: int) -> np.ndarray:
        seen.append((path, number))
        return read(path, number)

    with monkeypatch.context() as patch:
        patch.setattr(opened.arrays, "read", noted)
        found = _sides.similar([(side, opened)], "train", 32).cka()
    assert len(seen) == len(set(seen)) == 3 * 5
    tables = [opened.read("train", cell).x for cell in cells]
    np.testing.assert_allclose(found, cka.of_tables(tables, 32).cka(), atol=0.05)


@pytest.mark.parametrize(
    ("lengths", "least", "expected"),
    [
        ([512], 600, [[0]]),
        ([512, 512, 54], 256, [[0], [1, 2]]),
        ([512, 512, 300], 256, [[0], [1], [2]]),
        ([512] * 5, 1000, [[0, 1], [2, 3, 4]]),
    ],
)
def test_pieces_hold_whole_minibatches(lengths: list[int], least: int, expected: list[list[int]]) -> None:
    assert _sides.pieces(lengths, least) == expected


def test_drawn_rows_are_in_random_order_and_keep_their_numbers() -> None:
    dataset = datasets.load("digits")
    whole, drawn = dataset.build("val"), Drawn(dataset, "val", 100, 0).build("val")
    assert len(drawn) == 100 and len(set(drawn.index.tolist())) == 100
    assert not np.array_equal(drawn.index, np.sort(drawn.index))
    place = int(np.flatnonzero(whole.index == drawn.index[3])[0])
    assert (drawn.read([3])[0] == whole.read([place])[0]).all() and drawn.labels[3] == whole.labels[place]
    assert len(Drawn(dataset, "val", 10**6, 0).build("val")) == len(whole)
    assert Drawn(dataset, "val", 100, 1).fingerprint != Drawn(dataset, "val", 100, 0).fingerprint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--models", "RUN,RUN?untrained,pixels"], ["names 3 networks", "one or two"]),
        (["--models", "RUN", "--blocks", "midd"], ["No block in", "Did you mean 'mid'"]),
        (["--models", "RUN", "--blocks", "99"], ["has no block 99"]),
        (["--models", "RUN,pixels:8", "--blocks", "mid"], ["No block in pixels:8 'mid'"]),
        (["--models", "RUN", "--other-blocks", "mid"], ["names one"]),
        (["--models", "RUN", "--rows", "3"], ["--rows must be at least 4"]),
        (["--models", "RUN", "--minibatch", "3"], ["--minibatch must be at least 4"]),
        (["--models", "RUN", "--split", "vall"], ["Did you mean 'val'"]),
        (["--models", "RUN", "--t", "1000"], ["t = 1000", "0 to 999"]),
        (["--models", "pixels:8", "--t", "10"], ["clean images"]),
        (["--models", "RUN", "--t", "10", "--sigma", "1"], ["Both --t and --sigma"]),
        (["--models", "pixels:8", "--controls", "untrained"], ["no network of --models has weights"]),
        (["--models", "RUN", "--workers", "2"], ["Leave --workers and --ray out"]),
        (["--models", "RUN", "--data", "folder:FEW"], ["val split", "1 images; CKA needs 4"]),
        (["--models", "RUN", "--pool", "9"], ["pool 9"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], says: list[str], tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        for k in range(count):
            path = tmp_path / "few" / split / "a" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * k, 0, 9)).save(path)
    given = [a.replace("RUN", str(tiny_run)).replace("FEW", str(tmp_path / "few")) for a in arguments]
    data = [] if "--data" in given else ["--data", "digits"]
    refused(command("compare", *data, "--out", tmp_path / "out", *given), *says)
    assert not (tmp_path / "out").exists()


def test_a_store_of_other_images_is_refused(compared: Path, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    asked = ("compare", "--models", tiny_run, "--data", "digits", "--out", tmp_path / "run", *WIDE)
    code, out, _ = command(*asked, "--features", compared / "features", "--json")
    assert code == 0 and json.loads(out)["passes"] == 0
    asked = (*asked[:5], "--out", tmp_path / "other", *WIDE)
    refused(command(*asked, "--rows", 50, "--features", compared / "features"), "was made from something else")


def test_matched_rows_are_drawn_as_a_line(tmp_path: Path) -> None:
    values = np.eye(10) * 0.5 + 0.3
    for matched in (False, True):
        panel = similarities.Panel("t", values, [str(k) for k in range(10)], [str(k) for k in range(10)], matched)
        similarities.maps([panel], "rows", "columns", "title", [tmp_path / f"{matched}.svg"])
    green = [(tmp_path / f"{matched}.svg").read_text().count("#009e73") for matched in (False, True)]
    assert green[0] == 0 < green[1]


def test_the_page_shows_what_was_compared(compared: Path, tmp_path: Path, command: Command) -> None:
    assert command("report", compared, "--out", tmp_path / "page")[0] == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("data:image/png") == 6 and page.count("of the same networks untrained") >= 3
    assert 'href="#similarity"' in page and "independent noise" in page
    first = results.read(compared)[0]
    assert f"{first.value:.2f}<small>{first.low:.2f} to {first.high:.2f}</small>" in page
    assert page.count('<span class="badge">control</span>') == len(results.read(compared)) / 2


def test_an_unfinished_run_is_shown_as_far_as_it_is(compared: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_bytes((compared / "config.toml").read_bytes())
    assert command("report", tmp_path / "run", "--out", tmp_path / "page")[0] == 0
    assert "unfinished" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.toml", "models = [", "model = ["),
        ("finished.json", '"n": 60', '"n": "60"'),
        ("finished.json", '"same": true', '"same": false, "matches": [{}]'),
        ("results.jsonl", '"steps"', '"step"'),
        ("cka-blocks.png", "", ""),
    ],
)
def test_a_damaged_run_is_one_line_on_the_page(
    compared: Path, tmp_path: Path, command: Command, name: str, old: str, new: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in compared.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    text = (run / name).read_text() if old else ""
    assert old in text
    (run / name).write_text(text.replace(old, new))
    if '"matches": [{}]' in new:
        facts = json.loads((compared / "finished.json").read_text())
        (run / name).write_text(json.dumps({**facts, "same": False, "matches": [{}]}))
    refused(command("report", run, "--out", tmp_path / "page"), name)
