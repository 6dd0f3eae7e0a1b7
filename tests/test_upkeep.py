"""`twofold store`: every kind of damage is found and named, and nothing is removed that anybody could want."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tiny_stores import ABOUT, CELL, KEY, PATH, filled
from twofold import cli, store, upkeep
from twofold.claims import Claims
from twofold.errors import BadStore
from twofold.records import Cell, Tap

Command = Callable[..., tuple[int, str, str]]


def states(folder: Path) -> dict[str, str]:
    return {v.path: v.state for v in upkeep.verify(store.load(folder))}


def flip(file: Path, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(bytes(content))


def test_what_a_store_holds_in_words_and_as_json(tmp_path: Path, command: Command) -> None:
    folder = filled(tmp_path / "s", order=(0, 2))
    code, out, _ = command("store", "ls", folder)
    assert code == 0 and "train/features/b5_t20_p1  mid    20  0.08   1     float16 1100 x 3" in out and "2 of 3" in out
    facts = json.loads(command("store", "ls", folder, "--json")[1])
    assert [c["path"] for c in facts["columns"]] == ["train/labels", "train/index", PATH]
    assert facts["columns"][2]["lacking"] == [1] and facts["columns"][2]["bytes"] == 1100 * 3 * 2
    code, out, _ = command("store", "info", folder)
    assert code == 0
    for told in ("t=20 (σ=0.08)", "5 mid", "1,100 train", "digits, 3 classes", "1 columns; the same `twofold extract`"):
        assert told in out
    assert json.loads(command("store", "info", folder, "--json")[1])["key"] == {"version": store.VERSION, **KEY}


def test_checksums_are_of_what_is_held_not_of_who_wrote_it(tmp_path: Path, command: Command) -> None:
    def checksum(folder: Path) -> str:
        code, out, _ = command("store", "verify", folder, "--json")
        assert code == 0
        return str(json.loads(out)["checksum"])

    one = checksum(filled(tmp_path / "one"))
    assert one == checksum(filled(tmp_path / "two", order=(2, 1, 0, 1)))
    assert one != checksum(filled(tmp_path / "other", values=2.0))
    other_key = store.make(tmp_path / "key", {**KEY, "seed": 1}, {})
    shutil.copytree(tmp_path / "one" / "train", tmp_path / "key" / "train")
    assert one != upkeep.checksum(other_key, list(upkeep.verify(other_key)))


@pytest.mark.parametrize("byte", [0, 1500, -5, -1])
@pytest.mark.parametrize("name", [f"{PATH}/c/0/0", f"{PATH}/c/2/0", "train/labels/c/0", "train/index/c/0"])
def test_one_flipped_bit_is_found_wherever_it_is(tmp_path: Path, name: str, byte: int, command: Command) -> None:
    folder = filled(tmp_path / "s")
    flip(folder / name, byte)
    column = name.partition("/c/")[0]
    assert states(folder)[column] == "damaged"
    code, out, err = command("store", "verify", folder)
    assert code == 2 and "damaged" in out and "is not whole: of 3 columns 0 missing" in err and err.count("\n") == 1
    with pytest.raises(BadStore, match=column):
        store.load(folder).read("train", CELL)


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda f: (f / PATH / "c/1/0").unlink(), "missing"),
        (lambda f: (f / PATH / "c/1/0").write_bytes(b""), "damaged"),
        (lambda f: (f / PATH / "c/1/0").write_bytes((f / PATH / "c/1/0").read_bytes() + b"x"), "damaged"),
        (lambda f: (f / PATH / "zarr.json").write_text("{"), "damaged"),
        (lambda f: flip_text(f, '"float16"', '"float32"'), "damaged"),
        (lambda f: flip_text(f, '"t": 20.0', '"t": 21.0'), "damaged"),
        (lambda f: flip_text(f, '"sigma": 0.08', '"sigma": "x"'), "damaged"),
        (lambda f: flip_text(f, "1100", "1101"), "damaged"),
    ],
)
def test_every_other_damage_has_its_name(
    tmp_path: Path, damage: Callable[[Path], object], state: str, command: Command
) -> None:
    folder = filled(tmp_path / "s")
    damage(folder)
    assert states(folder) == {"train/labels": "whole", "train/index": "whole", PATH: state}
    facts = json.loads(command("store", "verify", folder, "--json")[1])
    assert facts["checksum"] is None and not facts["whole"] and facts["columns"][2]["why"]
    assert command("store", "ls", folder)[0] == command("store", "info", folder)[0] == 0


def flip_text(folder: Path, before: str, after: str) -> None:
    file = folder / PATH / "zarr.json"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_chunks_are_those_of_zarr_itself(tmp_path: Path) -> None:
    """Zarr reads ours, and writes the same bytes; what it left of an array without checksums is still read."""
    import zarr

    folder = filled(tmp_path / "s")
    array = zarr.open_group(str(folder))[PATH]
    ours = {f.parent.name: f.read_bytes() for f in (folder / PATH / "c").glob("*/0")}
    np.testing.assert_array_equal(array[:], store.load(folder).read("train", CELL).x)
    array.with_config({"write_empty_chunks": True})[:] = array[:]
    assert {f.parent.name: f.read_bytes() for f in (folder / PATH / "c").glob("*/0")} == ours
    shutil.rmtree(folder / PATH)
    old = zarr.open_group(str(folder)).create_array(
        PATH, shape=(1100, 3), chunks=(512, 3), dtype="float16", compressors=None, fill_value=0, attributes=ABOUT
    )
    old[:] = np.ones((1100, 3))
    opened = store.load(folder)
    opened.write_chunk("train", CELL, 2, np.full((76, 3), 2, np.float32))
    assert opened.read("train", CELL).x.sum() == 3 * (1024 + 2 * 76)
    assert [v.why for v in upkeep.verify(opened)] == ["", "", "no checksums beside its chunks"]


def test_leftovers_go_and_nothing_else(tmp_path: Path, command: Command) -> None:
    folder = filled(tmp_path / "s")
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    half = "0123456789abcdef0123456789abcdef.partial"
    left = [f"{PATH}/c/1/0.{half}", f"zarr.{half}", f"{PATH}/c/9/0", "train/features/b7_t20_p1/c/0/0"]
    kept = ["thesis.tex", "notes.partial", "train/features/b7_t20_p1/readme"]
    for name in [*left, *kept]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    store.load(folder).begin_cell("train", Cell(Tap(6, 20.0), 1), (3,), {**ABOUT, "block": 6})
    begun = "train/features/b6_t20_p1"
    code, out, _ = command("store", "gc", folder, "--json")
    assert code == 0 and json.loads(out)["removed"] == sorted(left)
    assert (folder / begun).exists(), "an extraction would go on with it"
    code, out, _ = command("store", "gc", folder, "--unfinished", "--json")
    assert code == 0 and json.loads(out)["removed"] == [begun]
    after = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".claims"}
    assert after == {**before, **{folder / name: b"x" for name in kept}}


def test_nothing_is_removed_while_another_process_fills_the_store(tmp_path: Path, command: Command) -> None:
    import subprocess
    import sys

    folder = filled(tmp_path / "s")
    code = f"from twofold.claims import Claims; from pathlib import Path; c = Claims(Path({str(folder)!r}) / '.claims')"
    asks = f"{code}; assert c.take('a') and c.take('a'); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", asks], stdin=-1, stdout=-1) as other:
        assert other.stdout and other.stdout.readline() == b"1\n"
        told = command("store", "gc", folder)
        with Claims(folder / ".claims") as mine:
            assert not mine.take("a") and mine.take("b")
            other.kill()
            other.wait()
            assert mine.take("a"), "a claim dies with its owner"
    assert told[0] == 2 and "is being filled by another process" in told[2] and told[2].count("\n") == 1
    assert command("store", "gc", folder)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "DIR"], "Did you mean"),
        (["ls"], "store needs WHERE"),
        (["ls", "NONE"], "not a feature store"),
        (["ls", "DIR", "--unfinished"], "--unfinished says what gc removes"),
        (["ls", ""], "names no store"),
        (["ls", "s3://"], "names no folder"),
        (["ls", "nosuch://bucket/x"], "nosuch"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], says: str, command: Command) -> None:
    places = {"DIR": str(filled(tmp_path / "s")), "NONE": str(tmp_path / "none")}
    code, out, err = command("store", *(places.get(a, a) for a in arguments))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err
    assert cli.run(["store", "ls", places["DIR"], "--quiet"]) == 0
