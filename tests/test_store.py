"""Stores: what they refuse, how they go on after an interruption, and that their bytes do not depend on it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

import processes
import tiny_stores
from twofold import cli, noise, places, pooling, store
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadStore, SealedSplit
from twofold.records import Cell, Tap
from twofold.steps import extract

Command = Callable[..., tuple[int, str, str]]
BLOCKS, STEPS, POOLS = ("1", "mid"), (20.0, 100.0), (1, 2)
CELL = Cell(Tap(5, 20.0), 1)
KEY = {"backbone": "b", "dtype": "float16"}


def settings(run: Path, out: Path, **changed: object) -> extract.Config:
    usual = {"split": ("train", "val"), "blocks": BLOCKS, "t": STEPS, "pool": POOLS, "precision": "fp32"}
    return extract.Config(str(run), "digits", out, **{**usual, **changed})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def flags(run: Path, out: Path) -> list[str]:
    where = ["extract", "--model", str(run), "--data", "digits", "--out", str(out), "--split", "train,val"]
    return [*where, "--blocks", "1,mid", "--t", "20,100", "--pool", "1,2", "--precision", "fp32"]


@pytest.fixture(scope="module")
def extracted(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "whole"
    assert cli.run([*flags(tiny_run, folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def copied(extracted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(extracted, tmp_path / "copied")


@pytest.fixture
def small(tmp_path: Path) -> store.Store:
    """A store of 600 rows and one empty cell of three numbers."""
    made = store.make(tmp_path / "small", KEY, {})
    made.begin_split("train", np.arange(600) % 3, np.arange(600))
    made.begin_cell("train", CELL, (3,), {})
    return made


def test_rows_are_the_features_of_their_images(extracted: Path, tiny_run: Path) -> None:
    """Row by row: the noise is that of the image's own index, also behind the first chunk."""
    backbone, rows = backbones.load(str(tiny_run), precision="fp32"), datasets.load("digits").build("train")
    opened = store.load(extracted)
    for row in (3, 700, 1077):
        x = backbone.preprocess(rows.read([row]))
        own = torch.from_numpy(noise.normal(0, [rows.index[row]], x.shape[1:]))
        for t in STEPS:
            wanted = pooling.pool(backbone.features(x, t, ["mid"], own)["mid"], 2)[0].numpy()
            table = opened.read("train", Cell(Tap(5, t), 2))
            np.testing.assert_allclose(table.x[row], wanted, rtol=2e-3, atol=2e-3)
            assert (table.y[row], table.index[row]) == (rows.labels[row], rows.index[row])


def test_a_store_says_what_is_in_it(extracted: Path) -> None:
    opened = store.load(extracted)
    assert opened.splits() == ["train", "val"]
    assert opened.cells("val") == [Cell(Tap(b, t), p) for b in (1, 5) for t in STEPS for p in POOLS]
    about = opened.about_cell("train", CELL)
    assert (about["block"], about["name"], about["t"], about["pool"]) == (5, "mid", 20.0, 1)
    assert about["sigma"] == pytest.approx(0.0754, rel=0.1)


def test_more_draws_are_the_mean_over_draws(tiny_run: Path, tmp_path: Path) -> None:
    one: dict[str, object] = {"split": ("val",), "blocks": ("mid",), "t": (100.0,), "pool": (1,), "dtype": "float32"}
    extract.run(settings(tiny_run, tmp_path / "two", draws=2, **one))
    backbone, rows = backbones.load(str(tiny_run), precision="fp32"), datasets.load("digits").build("val")
    x = backbone.preprocess(rows.read(range(9)))
    draws = [torch.from_numpy(noise.normal(0, rows.index[:9], x.shape[1:], draw=d)) for d in (0, 1)]
    wanted = sum(pooling.pool(backbone.features(x, 100, [5], own)[5], 1) for own in draws) / 2
    found = store.load(tmp_path / "two").read("val", Cell(Tap(5, 100.0), 1)).x[:9]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--seed", "1"], "seed is 0 there, 1 here"),
        (["--draws", "2"], "draws is 1 there, 2 here"),
        (["--dtype", "float32"], "dtype is float16 there, float32 here"),
        (["--precision", "bf16"], "precision is float32 there, bfloat16 here"),
        (["--model", "RUN?untrained"], "backbone is"),
    ],
)
def test_a_store_of_another_key_is_refused_by_name(
    extracted: Path, tiny_run: Path, change: list[str], says: str, command: Command
) -> None:
    before = contents(extracted)
    code, out, err = command(*flags(tiny_run, extracted), *(c.replace("RUN", str(tiny_run)) for c in change), "--quiet")
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1 and err.count(" there, ") == 1
    assert contents(extracted) == before


def test_the_same_command_again_computes_nothing(extracted: Path, tiny_run: Path) -> None:
    before = contents(extracted)
    assert extract.run(settings(tiny_run, extracted)).facts["passes"] == 0
    assert contents(extracted) == before


@pytest.mark.parametrize(
    ("lost", "passes"),
    [
        (["train/features/b5_t20_p1/c/1/0"], 512),
        (["train/features/b5_t20_p1/c/2/0", "train/features/b1_t20_p2/c/2/0"], 54),
        (["train/features/b5_t20_p1/c/0/0", "train/features/b5_t100_p1/c/0/0"], 1024),
        (["val/features/b1_t100_p2/c/0/0", "val/labels/c/0"], 269),
        (["val/index/c/0"], 0),
    ],
)
def test_only_what_is_missing_is_computed(copied: Path, tiny_run: Path, lost: list[str], passes: int) -> None:
    before = contents(copied)
    for name in lost:
        (copied / name).unlink()
    assert extract.run(settings(tiny_run, copied)).facts["passes"] == passes
    assert contents(copied) == before


def test_a_new_split_or_pool_is_added_and_the_rest_kept(copied: Path, tiny_run: Path) -> None:
    before = contents(copied)
    assert extract.run(settings(tiny_run, copied, split=("val",), pool=(1, 4))).facts["passes"] == 2 * 269
    assert extract.run(settings(tiny_run, copied, split=("test",), t=(20.0,))).facts["passes"] == 450
    after = contents(copied)
    assert {name: after[name] for name in before} == before


def test_a_split_that_is_named_twice_is_computed_once(tiny_run: Path, tmp_path: Path) -> None:
    config = settings(tiny_run, tmp_path / "out", split=("val", "val"), t=(20.0,))
    assert extract.run(config).facts["passes"] == 269


def test_two_stores_of_the_same_settings_are_the_same_bytes(extracted: Path, tiny_run: Path, tmp_path: Path) -> None:
    extract.run(settings(tiny_run, tmp_path / "second"))
    assert contents(tmp_path / "second") == contents(extracted)


def test_blocks_asked_for_one_by_one_give_the_same_bytes(extracted: Path, tiny_run: Path, tmp_path: Path) -> None:
    for block in BLOCKS:
        for pool in POOLS:
            extract.run(settings(tiny_run, tmp_path / "apart", blocks=(block,), pool=(pool,)))
    assert contents(tmp_path / "apart") == contents(extracted)


def test_batches_of_another_size_give_the_same_features(extracted: Path, tiny_run: Path, tmp_path: Path) -> None:
    exact: dict[str, object] = {"split": ("val",), "t": (20.0,), "dtype": "float32"}
    for batch in (7, 128):
        extract.run(settings(tiny_run, tmp_path / str(batch), batch=batch, **exact))
    seven, many = (store.load(tmp_path / str(batch)) for batch in (7, 128))
    for cell in many.cells("val"):
        np.testing.assert_allclose(seven.read("val", cell).x, many.read("val", cell).x, rtol=1e-4, atol=1e-4)


def test_pool_0_keeps_the_map(tiny_run: Path, tmp_path: Path) -> None:
    found = extract.run(settings(tiny_run, tmp_path / "maps", split=("val",), t=(20.0,), pool=(0, 1)))
    assert found.facts["passes"] == 269
    opened = store.load(tmp_path / "maps")
    maps, means = (opened.read("val", Cell(Tap(1, 20.0), pool)).x for pool in (0, 1))
    assert maps.shape == (269, 16, 8, 8)
    np.testing.assert_allclose(maps.mean((2, 3)), means, atol=2e-3)
    assert (
        extract.run(settings(tiny_run, tmp_path / "maps", split=("val",), t=(20.0,), pool=(0, 1))).facts["passes"] == 0
    )


@pytest.mark.parametrize("value", [7e4, np.inf, np.nan])
def test_a_value_that_the_dtype_cannot_hold_names_the_cell(small: store.Store, value: float) -> None:
    values = np.zeros((512, 3), np.float32)
    values[17, 2] = value
    with pytest.raises(BadStore, match=r"b5_t20_p1.*float16.*--dtype float32"):
        small.write_chunk("train", CELL, 0, values)
    assert small.missing("train", CELL) == [0, 1]


def test_features_too_large_for_float16_end_the_command(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    loud = shutil.copytree(tiny_run, tmp_path / "loud")
    (file,) = (loud / "unet").glob("*.safetensors")
    save_file({n: w * 1e7 if n == "conv_in.weight" else w for n, w in load_file(file).items()}, file, {"format": "pt"})
    code, _, err = command(*flags(loud, tmp_path / "out"), "--quiet")
    assert code == 2 and err.count("\n") == 1
    assert "b1_t20_p1" in err and "--dtype float32" in err
    assert store.load(tmp_path / "out").cells("train") == []
    assert command(*flags(loud, tmp_path / "wide"), "--quiet", "--dtype", "float32", "--blocks", 1)[0] == 0


def test_a_chunk_of_zeros_counts_as_done(small: store.Store) -> None:
    small.write_chunk("train", CELL, 0, np.zeros((512, 3), np.float32))
    assert small.missing("train", CELL) == [1]
    small.write_chunk("train", CELL, 1, np.zeros((88, 3), np.float32))
    assert small.missing("train", CELL) == []
    assert (small.read("train", CELL).x == 0).all()


def test_an_unfinished_cell_is_not_read(small: store.Store) -> None:
    small.write_chunk("train", CELL, 1, np.ones((88, 3), np.float32))
    assert small.cells("train") == []
    with pytest.raises(BadStore, match=r"lacks b5_t20_p1 of train \(1 chunks\).*twofold extract"):
        small.read("train", CELL)


def test_a_sealed_split_can_be_neither_read_nor_written(extracted: Path) -> None:
    opened = store.load(extracted, sealed=("val",))
    assert opened.read("train", CELL).x.shape == (1078, 32 // 2)
    ways: list[Callable[[], object]] = [
        lambda: opened.read("val", CELL),
        lambda: opened.labels("val"),
        lambda: opened.index("val"),
        lambda: opened.cells("val"),
        lambda: opened.about_cell("val", CELL),
        lambda: opened.begin_split("val", np.zeros(3, np.int64), np.arange(3)),
        lambda: opened.begin_cell("val", Cell(Tap(1, 3.0), 1), (3,), {}),
        lambda: opened.write_chunk("val", CELL, 0, np.zeros((269, 16), np.float32)),
    ]
    for way in ways:
        with pytest.raises(SealedSplit, match="val split"):
            way()


def test_a_split_that_is_not_there_says_how_to_get_it(extracted: Path) -> None:
    with pytest.raises(BadStore, match=r"no test split.*twofold extract --split test"):
        store.load(extracted).labels("test")


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path, tiny_run: Path, command: Command) -> None:
    with pytest.raises(BadStore, match="not a feature store"):
        store.load(tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for taken in ("mine", "file"):
        code, _, err = command(*flags(tiny_run, tmp_path / taken), "--quiet")
        assert code == 2 and "not a feature store" in err and err.count("\n") == 1
    assert contents(tmp_path) == {"mine/thesis.tex": b"x", "file": b"x"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"zarr_format": 3, "node_type": "group"}', "\x00\x01"])
def test_a_damaged_store_is_one_clear_line(copied: Path, tiny_run: Path, text: str, command: Command) -> None:
    (copied / "zarr.json").write_text(text)
    with pytest.raises(BadStore, match="damaged"):
        store.load(copied)
    code, _, err = command(*flags(tiny_run, copied), "--quiet")
    assert code == 2 and err.count("\n") == 1


def test_a_damaged_chunk_is_one_clear_line(copied: Path) -> None:
    chunk = copied / "train/features/b5_t20_p1/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    with pytest.raises(BadStore, match="b5_t20_p1"):
        store.load(copied).read("train", CELL)


def other(file: Path, **changed: object) -> str:
    """The file's JSON with other values at its top."""
    return json.dumps({**json.loads(file.read_text()), **changed})


@pytest.mark.parametrize("name", ["val/labels", "val/index", "val/features/b5_t20_p1"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: "{",
        lambda file: "",
        lambda file: "[]",
        lambda file: "5",
        lambda file: "{}",
        lambda file: '{"zarr_format": 3, "node_type": "group"}',
        lambda file: other(file, shape="x"),
        lambda file: other(file, shape=[3]),
        lambda file: other(file, data_type="float99"),
        lambda file: other(file, codecs=[]),
        lambda file: other(file, chunk_grid={}),
    ],
)
def test_a_damaged_description_of_an_array_is_one_line_that_names_it(
    copied: Path, tiny_run: Path, name: str, damage: Callable[[Path], str], command: Command
) -> None:
    file = copied / name / "zarr.json"
    file.write_text(damage(file))
    code, out, err = command(*flags(tiny_run, copied), "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert f"{copied / name} is damaged" in err or f"{name} is not that of this data set" in err


def test_a_cell_that_does_not_say_where_it_was_read_is_damaged(copied: Path, tiny_run: Path) -> None:
    file = copied / "val/features/b5_t20_p1/zarr.json"
    file.write_text(other(file, attributes={"block": 5}))
    with pytest.raises(BadStore, match=r"b5_t20_p1 is damaged \(it does not say name, pool, share, sigma, t\)"):
        extract.run(settings(tiny_run, copied))


@pytest.mark.parametrize("name", ["val/labels/c/0", "val/index/c/0"])
@pytest.mark.parametrize("kept", [0, 11])
def test_a_damaged_column_is_one_line_and_mended_by_what_it_says(
    copied: Path, tiny_run: Path, name: str, kept: int, command: Command
) -> None:
    before = contents(copied)
    (copied / name).write_bytes((copied / name).read_bytes()[:kept])
    code, out, err = command(*flags(tiny_run, copied), "--quiet")
    array = (copied / name).parents[1]
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert f"{array} is damaged" in err and "Delete that folder and extract again" in err
    shutil.rmtree(array)
    assert command(*flags(tiny_run, copied), "--quiet")[0] == 0
    assert contents(copied) == before


def test_a_stray_array_beside_the_cells_is_one_line(copied: Path) -> None:
    shutil.copytree(copied / "val/features/b5_t20_p1", copied / "val/features/mine")
    with pytest.raises(BadStore, match=r"val/features is damaged \('mine'"):
        store.load(copied).cells("val")


def test_labels_that_are_not_those_of_the_data_are_refused(copied: Path) -> None:
    opened, rows = store.load(copied), datasets.load("digits").build("val")
    opened.begin_split("val", rows.labels, rows.index)
    for labels, index in ((rows.labels[::-1], rows.index), (rows.labels, rows.index + 1), (rows.labels[1:],) * 2):
        with pytest.raises(BadStore, match=r"val/(labels|index) is not that of this data set"):
            opened.begin_split("val", labels, index)


def test_what_a_killed_writer_left_does_not_hinder(tiny_run: Path, tmp_path: Path, extracted: Path) -> None:
    """Killed while it wrote the very first file: only zarr's temporary file is there."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "zarr.0123456789abcdef0123456789abcdef.partial").write_text("{")
    extract.run(settings(tiny_run, tmp_path / "begun", split=("val",), t=(20.0,)))
    assert store.load(tmp_path / "begun").read("val", CELL).x.shape[0] == 269


def work(folder: Path, ready: Path, workers: int) -> None:
    """Fill one store with several processes that begin at once."""
    ready.mkdir()
    begun = [processes.FORKS.Process(target=tiny_stores.fill, args=(folder, ready, workers)) for _ in range(workers)]
    for process in begun:
        process.start()
    for process in begun:
        process.join()
    assert [process.exitcode for process in begun] == [0] * workers


def test_workers_that_begin_at_once_fill_one_store_as_one_alone_does(tmp_path: Path) -> None:
    work(tmp_path / "alone", tmp_path / "one", 1)
    for attempt in range(2):
        work(tmp_path / f"together{attempt}", tmp_path / f"ready{attempt}", 4)
        assert contents(tmp_path / f"together{attempt}") == contents(tmp_path / "alone")


def interleaved(monkeypatch: pytest.MonkeyPatch, first: Callable[[], object], other: Callable[[], object]) -> None:
    """Let the other worker run just before `first` creates its array; where it must wait, it goes on afterwards."""
    create, failed = zarr.Group.create_array, []

    def attempt() -> None:
        try:
            other()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=attempt)

    def paused(self: zarr.Group, *arguments: Any, **settings: Any) -> Any:
        monkeypatch.setattr(zarr.Group, "create_array", create)
        thread.start()
        thread.join(0.5)
        return create(self, *arguments, **settings)

    monkeypatch.setattr(zarr.Group, "create_array", paused)
    first()
    thread.join()
    assert not failed


def test_a_chunk_written_while_another_worker_makes_its_array_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (store.make(tmp_path / "both", KEY, {}) for _ in range(2))
    columns = (np.arange(9) % 3, np.arange(9))
    values = np.ones((9, 3), np.float32)

    def begin_and_write() -> None:
        other.begin_split("train", *columns)
        other.begin_cell("train", CELL, (3,), {})
        other.write_chunk("train", CELL, 0, values)

    interleaved(monkeypatch, lambda: one.begin_split("train", *columns), lambda: other.begin_split("train", *columns))
    interleaved(monkeypatch, lambda: one.begin_cell("train", CELL, (3,), {}), begin_and_write)
    assert one.missing("train", CELL) == []
    assert (one.read("train", CELL).x == values).all()


def test_a_folder_in_which_another_worker_makes_the_store_is_no_foreign_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker makes and fills the store between looking for it and looking at what else is there."""
    check = store._check_free

    def late(place: places.Place) -> None:
        monkeypatch.setattr(store, "_check_free", check)
        store.make(str(place), KEY, {}).begin_split("train", np.zeros(3, np.int64), np.arange(3))
        check(place)

    monkeypatch.setattr(store, "_check_free", late)
    assert store.make(tmp_path / "both", KEY, {}).splits() == ["train"]


def test_a_finished_store_needs_no_lock(extracted: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it can be read from a disk that may not be written."""
    monkeypatch.delattr(places.files, "locked")
    assert extract.run(settings(tiny_run, extracted)).facts["passes"] == 0


def test_cells_are_named_in_the_order_of_the_network(small: store.Store) -> None:
    some = [Cell(Tap(b, t), p) for b in (10, 2) for t in (None, 100.0, 20.0) for p in (2, 1)]
    for cell in some:
        small.begin_cell("train", cell, (1,), {})
        for number in (0, 1):
            small.write_chunk("train", cell, number, np.ones((len(small.chunk_rows("train")[number]), 1), np.float32))
    wanted = [f"b{b}{t}_p{p}" for b in (2, 10) for t in ("", "_t20", "_t100") for p in (1, 2)]
    assert list(map(str, small.cells("train"))) == wanted
    assert [Cell.parse(name) for name in wanted] == small.cells("train")


def test_the_key_holds_all_that_values_depend_on(extracted: Path) -> None:
    key = json.loads((extracted / "zarr.json").read_text())["attributes"]["key"]
    assert set(key) == {
        "version", "backbone", "preprocessing", "precision", "data", "seed", "draws", "label", "dtype"
    }  # fmt: skip
