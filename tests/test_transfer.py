"""The table of transfer: every cell is a run of its own, a failed one is marked, and the same command mends it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from twofold import cli, files, results, runs
from twofold.records import Outcome
from twofold.steps import probe
from twofold.workflows import _transferred, transfer

Command = Callable[..., tuple[int, str, str]]
SMALL = ("--blocks", 1, "--t", "20,200", "--pool", 1, "--quiet")


def table(out: Path) -> list[dict[str, Any]]:
    return files.read_lines(out / "table.jsonl")


def states(out: Path) -> dict[tuple[str, str], str]:
    return {(line["model"], line["head"]): line["state"] for line in table(out) if not line["control"]}


@pytest.fixture(scope="module")
def filled(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model and an encoder, two heads, one data set; only read."""
    out = tmp_path_factory.mktemp("transfer") / "table"
    models = f"run:{tiny_run},pixels:4"
    command = ("transfer", "--models", models, "--data", "digits", "--out", out, "--head", "ridge,knn", *SMALL)
    assert cli.run([str(part) for part in command]) == 0
    return out


def test_every_shape_of_the_table_says_what_the_runs_say(filled: Path) -> None:
    lines = table(filled)
    assert {(line["row"], line["head"]) for line in lines} == {
        (row, head) for row in ("tiny", "tiny, untrained", "pixels:4", "raw pixels") for head in ("ridge", "knn")
    }
    for line in lines:
        scores = [s for s in results.read(filled / line["run"]) if s.name == "top1"]
        own = [
            s for s in scores if s.value == line["top1"] and (s.low, s.high, s.n) == (line["low"], line["high"], 450)
        ]
        assert own and line["state"] == "done" and line["n"] == 450
    with (filled / "table.csv").open() as file:
        plain = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in plain] == [line["top1"] for line in lines]
    for name in ("table.md", "table.tex"):
        text = (filled / name).read_text().replace("{\\scriptsize ", "").replace("}", "").replace("--", " to ")
        for line in lines:
            shown = f"{100 * line['top1']:.1f} ({100 * line['low']:.1f} to {100 * line['high']:.1f})"
            assert f"{line['row']}, {line['head']}" in text and shown in text
    with Image.open(filled / "bars.png") as picture:
        assert picture.width > 500
    assert "top-1 accuracy on test, %" in (filled / "bars.svg").read_text()


def test_controls_come_last_and_are_marked(filled: Path) -> None:
    controls = [line["control"] for line in table(filled)]
    assert controls == sorted(controls) and sum(controls) == 4
    assert {line["row"] for line in table(filled) if line["control"]} == {"tiny, untrained", "raw pixels"}


def test_a_tap_is_chosen_on_val_and_features_are_read_once(filled: Path) -> None:
    (cell,) = (c for c in (filled / "digits").iterdir() if c.name.startswith("tiny"))
    choice = json.loads((cell / "select" / "choice.json").read_text())
    for head in ("ridge", "knn"):
        own = results.read(cell / head)[0]
        assert (own.split, own.about["cell"]) == ("test", choice["cell"])
        assert runs.read_config(cell / head)["inputs"]["choice"] == choice["cell"]
    # Train and val were read to choose: the first test adds its own split, the second finds all there.
    model = f"run:{runs.read_config(cell / 'select')['settings']['model'].removeprefix('run:')}"
    noted = {head: files.read_lines(cell / head / "speeds.jsonl") for head in ("ridge", "knn")}
    assert [line["images"] for line in noted["ridge"] if line["row"] == model] == [450]
    assert noted["knn"] == [] and not list(cell.glob("*/features"))
    assert (
        len(list((filled / "features" / "digits").iterdir())) == 4
    )  # the model, it untrained, and two sizes of pixels


def test_what_a_reading_costs_is_in_the_table(filled: Path) -> None:
    for line in table(filled):
        of_pixels = "pixels" in line["row"]
        assert (line["parameters"] == 0) is of_pixels and (line["operations"] == 0) is of_pixels
        assert line["passes"] == 1
    ridge = next(line for line in table(filled) if (line["row"], line["head"]) == ("tiny", "ridge"))
    assert ridge["images_per_second"] > 0


def test_again_is_nothing_new(filled: Path, tiny_run: Path, command: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*") if path.is_file()}
    line = ("transfer", "--models", f"run:{tiny_run},pixels:4", "--data", "digits", "--out", filled)
    code, out, _ = command(*line, "--head", "ridge,knn", *SMALL, "--json")
    assert code == 0 and len(json.loads(out)["scores"]) == 8 and json.loads(out)["failed"] == []
    after = {path: path.stat().st_mtime_ns for path in filled.rglob("*") if path.is_file()}
    assert {p.name for p in before if before[p] != after[p]} <= {".lock", "log.txt"}
    told = command(*line, "--head", "ridge,knn", *SMALL)[1].splitlines()
    assert told[0].rstrip().endswith("is done already:") and told[1].index("digits") == told[2].index("  -") + 2
    code, _, err = command(*line, "--head", "ridge", *SMALL)
    assert code == 2 and "other settings" in err


def test_a_failed_cell_is_marked_named_and_mended_by_the_same_command(
    tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    later, out = tmp_path / "later", tmp_path / "table"
    line = ("transfer", "--models", f"pixels:8,run:{later}", "--data", "digits", "--out", out, "--head")
    asked = (*line, "ridge", "--controls", "none", *SMALL)
    code, told, err = command(*asked)
    assert code == 2 and err.splitlines()[-1].startswith("twofold: 1 of 2 cells failed: later on digits with ridge: ")
    assert "run the same command again" in err and "Traceback" not in err and "failed" in told
    assert states(out) == {("pixels:8", "ridge"): "done", ("later", "ridge"): "failed"}
    reason = table(out)[1]["reason"]
    assert (
        str(later) in reason and reason in (out / "table.md").read_text() and reason in (out / "table.csv").read_text()
    )
    (done,) = out.glob("digits/8-*/ridge/predictions/*.npz")
    when = done.stat().st_mtime_ns
    shutil.copytree(tiny_run, later)
    assert command(*asked)[0] == 0
    assert set(states(out).values()) == {"done"} and done.stat().st_mtime_ns == when
    assert all(line["reason"] == "" for line in table(out))


def test_one_head_that_cannot_read_the_tap_stops_no_other(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "table"
    asked = ("transfer", "--models", "pixels:8", "--data", "digits", "--out", out, "--head", "difformer,ridge", *SMALL)
    code, _, err = command(*asked, "--controls", "none")
    assert code == 2 and "difformer" in err
    assert states(out) == {("pixels:8", "difformer"): "failed", ("pixels:8", "ridge"): "done"}


def test_a_fault_of_ours_is_a_failed_cell_with_its_traceback_in_the_log(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = probe.run

    def broken(config: probe.Config) -> Outcome:
        if config.head == ("knn",):
            raise ZeroDivisionError("a fault\nof ours")
        return real(config)

    monkeypatch.setattr(probe, "run", broken)
    out = tmp_path / "table"
    asked = ("transfer", "--models", "pixels:8", "--data", "digits", "--out", out, "--head", "knn,ridge", *SMALL)
    assert command(*asked, "--controls", "none")[0] == 2
    assert table(out)[0]["reason"] == "ZeroDivisionError: a fault of ours"
    assert states(out)["pixels:8", "ridge"] == "done" and "Traceback" in (out / "log.txt").read_text()


def test_a_stopped_table_is_on_disk_and_goes_on(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = probe.run

    def stopped(config: probe.Config) -> Outcome:
        if config.head == ("knn",):
            raise KeyboardInterrupt
        return real(config)

    out = tmp_path / "table"
    asked = ("transfer", "--models", "pixels:8", "--data", "digits", "--out", out, "--head", "ridge,knn", *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(probe, "run", stopped)
        assert command(*asked, "--controls", "none")[0] == 130
    assert states(out) == {("pixels:8", "ridge"): "done", ("pixels:8", "knn"): "unfinished"}
    assert "unfinished" in (out / "table.md").read_text()
    assert command(*asked, "--controls", "none")[0] == 0
    assert set(states(out).values()) == {"done"}


def test_what_was_done_stays_in_a_table_that_is_stopped_again(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = probe.run, tmp_path / "table"
    asked = ("transfer", "--models", "pixels:8", "--data", "digits", "--out", out, "--head", "ridge,knn", *SMALL)

    def failing(error: BaseException, head: str) -> Callable[[probe.Config], Outcome]:
        def run(config: probe.Config) -> Outcome:
            if config.head == (head,):
                raise error
            return real(config)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(probe, "run", failing(ValueError("once"), "ridge"))
        assert command(*asked, "--controls", "none")[0] == 2
        patched.setattr(probe, "run", failing(KeyboardInterrupt(), "knn"))
        assert command(*asked, "--controls", "none")[0] == 130
    assert set(states(out).values()) == {"done"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--head", "rigde"), "Did you mean 'ridge'"),
        (("--judge", "rigde"), "Did you mean 'ridge'"),
        (("--models", "piksels"), "Did you mean 'pixels'"),
        (("--models", "run:nowhere"), "nowhere is not a folder"),
        (("--data", "digts"), "Did you mean 'digits'"),
        (("--t", "1", "--sigma", "1"), "Both --t and --sigma"),
    ],
)
def test_what_no_cell_could_be_made_with_is_refused_at_once(
    flags: tuple[str, ...], says: str, tmp_path: Path, command: Command
) -> None:
    code, out, err = command(
        "transfer", "--models", "pixels:8", "--data", "digits", "--out", tmp_path / "out", "--quiet", *flags
    )
    assert code == 2 and out == "" and says in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_steps(tmp_path: Path) -> None:
    config = transfer.Config(
        ("m",), ("digits",), tmp_path, ("knn",), blocks=("mid",), sigma=(0.1,), pool=(2,), search="adaptive",
        judge="knn", shots=3, trials=2, seeds=4, controls=("pixels",), memory=1.0, draws=2, seed=5, batch=7, label=1,
    )  # fmt: skip
    noisy, clean = (transfer.Source("m", "m", identity="id", noisy=noisy) for noisy in (True, False))
    data = transfer.Source("digits", "digits")
    chosen, tested = transfer._selection(config, noisy, data), transfer._test(config, noisy, data, "knn")
    assert (chosen.blocks, chosen.sigma, chosen.pool, chosen.search) == (("mid",), (0.1,), (2,), "adaptive")
    assert (chosen.head, chosen.shots, chosen.trials, chosen.draws, chosen.seed) == ("knn", 3, 2, 2, 5)
    assert (tested.head, tested.shots, tested.seeds, tested.controls, tested.batch) == (("knn",), 3, 4, ("pixels",), 7)
    assert tested.choice == chosen.out and chosen.features == f"{tested.features}/id-seed5"
    # An encoder has no noise step, and its clean features are kept under a key without a seed.
    other = transfer._selection(config, clean, data)
    assert other.sigma is None and other.features is None


def test_names_of_folders_are_plain_and_never_fall_together() -> None:
    names = ["digits", "folder:/a/b c", "folder:/x/b c", "folder:b_c", "mlp?hidden=2", "run:..", "..", "a/..", "é"]
    slugs = [files.slug(name) for name in names]
    assert slugs[0] == "digits" and len(set(slugs)) == len(slugs)
    for slug in slugs:
        assert slug.strip(".") and not set(slug) & set(" /?:\\") and not slug.startswith((".", "-")), slug


def test_pixels_as_a_model_are_the_pixels_of_the_control(filled: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "table"
    asked = ("transfer", "--models", "pixels:8", "--data", "digits", "--out", out, "--head", "ridge,knn", "--quiet")
    assert command(*asked)[0] == 0
    control = {line["head"]: line["top1"] for line in table(filled) if line["row"] == "raw pixels"}
    assert {line["head"]: line["top1"] for line in table(out)} == control


def test_a_table_without_a_run_is_one_line_to_a_report(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    out, page = tmp_path / "table", tmp_path / "page"
    asked = ("transfer", "--models", f"run:{tiny_run}", "--data", "digits", "--out", out, "--blocks", 99, "--quiet")
    assert command(*asked)[0] == 2 and set(states(out).values()) == {"failed"}
    code, _, err = command("report", out, "--out", page)
    assert code == 2 and "holds none yet" in err and err.count("\n") == 1 and not page.exists()


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["run:/a/one", "run:/a/two?untrained"], ["one", "two?untrained"]),
        (["timm:x@/w/a.pt", "timm:y@/w/a.pt?untrained"], ["timm:x", "timm:y?untrained"]),
        (["timm:x@/w/a.pt", "timm:x@/w/b.pt"], ["timm:x@a.pt", "timm:x@b.pt"]),
        (["run:/a/one", "run:/b/one"], ["run:/a/one", "run:/b/one"]),
    ],
)
def test_labels_are_as_short_as_tells_them_apart(names: list[str], labels: list[str], tmp_path: Path) -> None:
    assert list(transfer._labels(names, tmp_path)) == labels


def test_latex_keeps_every_sign() -> None:
    assert "a_b&c%\\".translate(_transferred.LATEX) == r"a\_b\&c\%\textbackslash{}"


def test_the_drawn_bars_are_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twofold.plots import bars as charts

    kept: list[Any] = []
    monkeypatch.setattr(charts, "save", lambda figure, out: kept.append(figure))
    one, two = [(50.0, 40.0, 55.0), None], [(10.0, 10.0, 10.0), (7.0, 6.0, 9.0)]
    bars = [charts.Bars("one", False, one), charts.Bars("two", True, two)]
    charts.grouped_bars(["a", "b"], bars, "accuracy, %", tmp_path / "bars.png")
    ax = kept[0].axes[0]
    heights = [[bar.get_height() for bar in group] for group in ax.containers if hasattr(group, "patches")]
    assert heights == [[50.0], [10.0, 7.0]] and ax.get_ylim()[0] == 0 and ax.get_ylabel() == "accuracy, %"
    hatched = [group.patches[0].get_hatch() for group in ax.containers if hasattr(group, "patches")]
    assert not hatched[0] and hatched[1]
