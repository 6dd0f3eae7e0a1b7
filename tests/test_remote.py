"""Stores at addresses: the same bytes as in a folder, against a real S3 server on this machine and in memory."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tiny_stores import CELL, KEY, PATH, filled
from twofold import places, store
from twofold.errors import BadSetting, BadStore

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket of a server that keeps objects in memory."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
        forget()
    server.stop()


def forget() -> None:
    """Close what s3fs keeps open and would open again with the settings of before."""
    import s3fs
    from zarr.core.sync import _get_loop

    for system in s3fs.S3FileSystem._cache.values():
        if system._s3creator is not None:
            closing = system._s3creator.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(closing, _get_loop() if system.asynchronous else system.loop).result(9)
    s3fs.S3FileSystem.clear_instance_cache()


def flags(run: Path, out: object) -> list[object]:
    where = ["--split", "train", "--blocks", "mid", "--t", "20", "--pool", "0,1", "--precision", "fp32"]
    return ["extract", "--model", run, "--data", "digits", "--out", out, *where, "--quiet"]


def contents(where: str | Path) -> dict[str, bytes]:
    """Every file but the two that processes lock."""
    place = places.parse(where)
    names = [n for n in place.names() if n not in (places.LOCK, places.CLAIMS)]
    if isinstance(place, places.Folder):
        return {n: (place.folder / n).read_bytes() for n in names}
    import fsspec

    return {n: fsspec.open(f"{where}/{n}").open().read() for n in names}


def test_extraction_into_s3_writes_the_bytes_of_a_folder_and_goes_on(
    bucket: str, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    url = f"{bucket}/some/features"
    assert command(*flags(tiny_run, tmp_path / "local"))[0] == 0
    assert command(*flags(tiny_run, url))[0] == 0
    assert contents(url) == contents(tmp_path / "local")
    # What is gone is made again, and only that.
    places.parse(url).remove("train/features/b5_t20_p1/c/1/0")
    places.parse(url).remove("train/labels")
    code, out, _ = command(*flags(tiny_run, url), "--json")
    assert code == 0 and json.loads(out)["passes"] == 512
    assert contents(url) == contents(tmp_path / "local")
    local, there = store.load(tmp_path / "local"), store.load(url)
    assert there.splits() == ["train"] and there.cells("train") == local.cells("train")
    for cell in local.cells("train"):
        np.testing.assert_array_equal(there.read("train", cell).x, local.read("train", cell).x)
    code, _, err = command(*flags(tiny_run, url), "--seed", 1)
    assert code == 2 and "seed is 0 there, 1 here" in err


def test_looking_after_a_store_in_s3(bucket: str, tmp_path: Path, command: Command) -> None:
    import s3fs

    where = (filled(f"{bucket}/kept"), filled(tmp_path / "local"))
    sums = [json.loads(command("store", "verify", w, "--json")[1])["checksum"] for w in where]
    assert sums[0] is not None and sums[0] == sums[1]
    system = s3fs.S3FileSystem(use_listings_cache=False)
    name = f"bucket/kept/{PATH}/c/0/0"
    content = system.cat(name)
    system.pipe(name, bytes([content[0] ^ 1]) + content[1:])
    code, out, _ = command("store", "verify", where[0], "--json")
    assert code == 2
    assert [c["path"] for c in json.loads(out)["columns"] if c["state"] != "whole"] == [PATH]
    system.pipe(f"bucket/kept/{PATH}/c/7/0", b"x")
    assert json.loads(command("store", "gc", where[0], "--json")[1])["removed"] == [f"{PATH}/c/7/0"]


def test_a_selection_keeps_its_features_at_an_address(
    bucket: str, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    run = ["select", "--model", tiny_run, "--data", "digits", "--out", tmp_path / "run", "--blocks", "mid"]
    code, out, err = command(*run, "--t", 20, "--pool", 1, "--features", f"{bucket}/chosen", "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["features"] == f"{bucket}/chosen"


def test_two_who_make_the_same_store_at_once_do_no_harm() -> None:
    """In memory nothing can be locked: the second maker finds the first one's arrays and leaves them."""
    one, other = (store.make("memory://both", KEY, {}) for _ in range(2))
    arrays = one.arrays
    columns = (np.arange(9) % 3, np.arange(9))
    for made in (one, other):
        made.begin_split("train", *columns)
        made.begin_cell("train", CELL, (3,), {})
    other.write_chunk("train", CELL, 0, np.ones((9, 3), np.float32))
    # As if the first had looked before the other began: it creates what is there by now.
    arrays.create(store.column("train", CELL), (9, 3), (9, 3), "float16", {})
    arrays.write_column("train/labels", columns[0])
    assert one.missing("train", CELL) == [] and (one.read("train", CELL).x == 1).all()
    assert (one.labels("train") == columns[0]).all()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://nobucket/x", "nobucket"),
        ("s3://", "names no folder"),
        ("nosuch://a/b", "nosuch"),
        ("http://127.0.0.1:9/x", "127.0.0.1:9/x"),
    ],
)
def test_an_address_that_does_not_work_is_one_line(
    bucket: str, tiny_run: Path, address: str, says: str, command: Command
) -> None:
    code, out, err = command(*flags(tiny_run, address))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err


def test_a_server_that_does_not_answer_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BadStore, match="Check the address, the network and your credentials"):
        store.load(f"{bucket}/elsewhere")
    forget()


def test_a_missing_package_says_how_to_get_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:

    forget()
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadSetting, match=r"pip install twofold\[remote\]"):
        store.load("s3://bucket/features")
