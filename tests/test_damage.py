"""Damaged data through the real command line: each kind gives its own line, and nothing else is lost."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_fine_grained
import tiny_sources
from twofold.datasets import base
from twofold.errors import BadData

Command = Callable[..., tuple[int, str, str]]
BAD = "train/b/3.jpg"


def photographs(folder: Path, splits: tuple[str, ...] = ("train", "test"), classes: str = "ab") -> Path:
    """Twenty coloured noises of each class in each split."""
    chance = np.random.default_rng(0)
    for split in splits:
        for label in classes:
            (folder / split / label).mkdir(parents=True)
            for k in range(20):
                pixels = chance.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{k}.jpg")
    return folder


def picture(size: tuple[int, int], kind: str = "jpeg") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def damaged(root: Path, content: bytes) -> None:
    (root / BAD).write_bytes(content)


# What is done to the tree, and the words that only its own line has.
UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda root: damaged(root, (root / BAD).read_bytes()[:400]), r"does not decode \(cut off: "),
    "text": (lambda root: damaged(root, b"I am a letter"), r"does not decode \(its bytes are no image of any kind"),
    "empty": (lambda root: damaged(root, b""), r"does not decode \(the file is empty"),
    "dot": (lambda root: damaged(root, picture((1, 1))), r"does not decode \(1 x 1 pixels show nothing"),
    "bomb": (lambda root: damaged(root, picture((10_000, 6_000), "png")), r"\(10,000 x 6,000 pixels, a bomb"),
    "large bomb": (lambda root: damaged(root, tiny_sources.bomb(20_000)), r"\(a bomb: more than 50 million"),
}


def line(err: str) -> str:
    (found,) = err.strip().splitlines()
    return found


def probe(command: Command, data: str, out: Path, *more: object) -> tuple[int, str, str]:
    arguments = ("probe", "--model", "pixels:4", "--data", data, "--out", out, "--block", 1, "--head", "ridge")
    return command(*arguments, "--pool", 4, "--quiet", *more)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_image_that_does_not_decode_stops_work_by_its_name(tmp_path: Path, command: Command, kind: str) -> None:
    damage, says = UNREADABLE[kind]
    data = f"folder:{photographs(tmp_path / 'd')}"
    damage(tmp_path / "d")
    for code, _, err in (command("data", "check", data, "--quiet"), probe(command, data, tmp_path / "run")):
        assert code == 2
        with pytest.raises(BadData, match=says):
            raise BadData(line(err))
        assert f"{tmp_path}/d/{BAD}" in err


def test_skipping_leaves_it_out_and_everything_says_so(tmp_path: Path, command: Command) -> None:
    data = f"folder:{photographs(tmp_path / 'd')}"
    whole = base.load(data)
    damaged(tmp_path / "d", b"")
    code, out, err = probe(command, data, tmp_path / "run", "--on-error", "skip", "--json")
    assert code == 0, err
    assert all(score["about"]["skipped"] == [BAD] for score in json.loads(out)["scores"])
    assert f"left out, since it does not decode: {BAD}" in (tmp_path / "run" / "log.txt").read_text()
    arguments = ("extract", "--model", "pixels:4", "--data", data, "--out", tmp_path / "store", "--pool", 4)
    code, out, _ = command(*arguments, "--on-error", "skip", "--json", "--quiet")
    assert code == 0 and json.loads(out)["skipped"] == [BAD] and sum(json.loads(out)["rows"].values()) == 79
    skipping = base.load(data, on_error="skip")
    assert skipping.skipped == (BAD,) and skipping.fingerprint != whole.fingerprint
    for split in base.SPLITS:
        here, there = skipping.build(split), whole.build(split)
        kept = [whole.image_name(i) != BAD for i in there.index]
        assert here.index.tolist() == there.index[kept].tolist() and here.labels.tolist() == there.labels[kept].tolist()
        assert len(list(here.read(range(len(here))))) == len(here)
    code, _, err = command(*arguments, "--quiet")
    assert code == 2 and "was made from something else: data is" in line(err)


def test_skipping_nothing_is_the_same_data(tmp_path: Path) -> None:
    data = f"folder:{photographs(tmp_path)}"
    whole, skipping = base.load(data), base.load(data, on_error="skip")
    assert (skipping.fingerprint, skipping.skipped, skipping.provenance) == (whole.fingerprint, (), {})
    assert (skipping.image_size, skipping.channels) == (24, 3)


def test_a_split_of_which_nothing_decodes_is_one_line(tmp_path: Path, command: Command) -> None:
    root = photographs(tmp_path / "d")
    for path in (root / "test").rglob("*.jpg"):
        path.write_bytes(b"")
    code, _, err = probe(command, f"folder:{root}", tmp_path / "run", "--on-error", "skip")
    assert code == 2 and "no image of test decodes" in line(err)


def test_pretrain_skips_too(tmp_path: Path, command: Command) -> None:
    root = photographs(tmp_path / "d")
    damaged(root, b"")
    arguments = ("pretrain", "--data", f"folder:{root}", "--out", tmp_path / "run", "--images", 8, "--batch", 8)
    small = ("--widths", "8,8", "--size", 8, "--probe-every", 0, "--quiet", "--json")
    code, _, err = command(*arguments, *small)
    assert code == 2 and "the file is empty" in line(err)
    code, out, err = command(*arguments[:4], tmp_path / "again", *arguments[5:], *small, "--on-error", "skip")
    assert code == 0 and json.loads(out)["skipped"] == [BAD], err


def test_an_empty_folder_is_one_line(tmp_path: Path, command: Command) -> None:
    for verb in (("data", "check"), ("extract", "--model", "pixels", "--out", tmp_path / "s", "--data")):
        code, _, err = command(*verb, f"folder:{tmp_path}")
        assert code == 2 and "holds no images" in line(err)


def test_one_class_is_enough_to_look_at_and_nothing_to_learn(tmp_path: Path, command: Command) -> None:
    data = f"folder:{photographs(tmp_path / 'd', classes='a')}"
    code, out, _ = command("data", "check", data, "--quiet")
    assert code == 0 and "One class only" in out
    code, _, err = probe(command, data, tmp_path / "run")
    assert code == 2 and "has one class only (a)" in line(err) and not (tmp_path / "run").exists()
    code, _, err = command("select", "--model", "pixels:4", "--data", data, "--out", tmp_path / "run")
    assert code == 2 and "has one class only (a)" in line(err)


def test_a_class_of_test_that_train_lacks_is_named(tmp_path: Path, command: Command) -> None:
    data = f"folder:{photographs(tmp_path / 'd')}"
    (tmp_path / "d" / "test" / "b").rename(tmp_path / "d" / "test" / "wasp")
    for code, _, err in (command("data", "check", data, "--quiet"), probe(command, data, tmp_path / "run")):
        assert code == 2 and "train has no image of wasp" in line(err)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, so tests that run as root step down for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_read_is_named(command: Command) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = photographs(Path(name))
        root.chmod(0o755)
        closed = root / "train" / "b"
        closed.chmod(0)
        with nobody():
            code, _, err = command("data", "check", f"folder:{root}", "--quiet")
        closed.chmod(0o755)
    assert code == 2 and "Permission denied" in err and str(closed) in line(err)


def pairs(dataset: base.Dataset, split: str) -> list[tuple[int, torch.Tensor]]:
    rows = dataset.build(split)
    return list(zip(rows.index.tolist(), rows.read(range(len(rows))), strict=True))


def test_a_wrong_list_of_matlab_is_named(tmp_path: Path, command: Command) -> None:
    root = tiny_fine_grained.flowers(tmp_path)
    (root / "setid.mat").write_bytes(b"no matrix")
    code, _, err = command("data", "check", f"flowers:{root}?partial", "--quiet")
    assert code == 2 and "setid.mat cannot be read as a MATLAB file" in line(err)


def test_an_odd_image_is_read_or_named_and_never_lost(tmp_path: Path, command: Command) -> None:
    """One of each damage at once: all are named in one go, and the rest is whole."""
    root = photographs(tmp_path / "d")
    contents = [b"", b"text", picture((1, 1)), (root / BAD).read_bytes()[:400], picture((10_000, 6_000), "png")]
    for k, content in enumerate(contents):
        (root / "train" / "b" / f"{k}.jpg").write_bytes(content)
    code, out, err = command("data", "check", f"folder:{root}", "--json", "--quiet")
    facts = json.loads(out)
    assert code == 2 and len(facts["unreadable"]) == 5 and "So do 4 others" in line(err)
    assert sum(facts["images"].values()) == 80


def check(command: Command, data: str, *more: object) -> dict[str, Any]:
    code, out, err = command("data", "check", data, "--json", "--quiet", *more)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_duplicates_between_splits_are_found_by_their_pixels(tmp_path: Path, command: Command) -> None:
    root = photographs(tmp_path / "d")
    assert check(command, f"folder:{root}")["duplicates"] == []
    with Image.open(root / "test" / "a" / "7.jpg") as image:
        image.save(root / "train" / "a" / "copy.png")
    data = f"folder:{root}"
    (found,) = check(command, data)["duplicates"]
    assert found["test"] == ["test/a/7.jpg"] and found["train"] + found["val"] == ["train/a/copy.png"]
    _, out, _ = command("data", "check", data, "--quiet")
    assert "1 image stands in both" in out and "train/a/copy.png = test/a/7.jpg" in out


def test_contents_see_what_a_fingerprint_does_not(tmp_path: Path, command: Command) -> None:
    for k in range(20):
        for label in "ab":
            (tmp_path / "d" / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "d" / label / f"{k}.bmp")
    data = f"folder:{tmp_path / 'd'}"
    before = check(command, data)
    assert check(command, data, "--verify", before["contents"]) == before
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "d" / "a" / "3.bmp")
    after = check(command, data)
    assert after["fingerprint"] == before["fingerprint"] and after["contents"] != before["contents"]
    code, _, err = command("data", "check", data, "--verify", before["contents"], "--quiet")
    assert code == 2 and "Its images were changed" in line(err)


def test_samples_are_drawn(tmp_path: Path, command: Command) -> None:
    facts = check(command, "digits", "--out", tmp_path / "samples.png")
    with Image.open(facts["picture"]) as picture:
        assert picture.width > 500 and len(picture.convert("RGB").getcolors(100_000) or []) > 10
    code, _, err = command("data", "check", "digits", "--out", tmp_path / "samples", "--quiet")
    assert code == 2 and "must end in .png" in line(err)


def test_a_list_of_labels_is_train_and_val_together(tmp_path: Path) -> None:
    root, listed = photographs(tmp_path / "d"), tmp_path / "few.txt"
    listed.write_text("\n".join([f"train/a/{k}.jpg" for k in range(10)] + [f"b/{k}.jpg" for k in range(5)]) + "\n")
    whole, few = base.load(f"folder:{root}"), base.load(f"folder:{root}?labels={listed}")
    assert few.name == f"folder:{root}?labels={listed}" and few.fingerprint != whole.fingerprint
    assert [len(few.build(split)) for split in base.SPLITS] == [12, 3, 40]
    named = {few.image_name(i) for split in ("train", "val") for i in few.build(split).index}
    assert named == {f"train/{line.removeprefix('train/')}" for line in listed.read_text().split()}
    images = {i: image for split in base.SPLITS for i, image in pairs(whole, split)}
    for split in base.SPLITS:
        assert all(torch.equal(image, images[i]) for i, image in pairs(few, split))
        rows = few.build(split)
        said = [few.image_name(i).split("/")[1] for i in rows.index]
        assert said == [few.classes[k] for k in rows.labels]
    assert few.build("test").index.tolist() == whole.build("test").index.tolist()


def test_a_wrong_list_of_labels_is_one_line(tmp_path: Path) -> None:
    root, listed = photographs(tmp_path / "d"), tmp_path / "few.txt"
    for content, says in (("3.jpg", "which is 2 images of train"), ("a/99.jpg", "which is no image"),
                          ("test/a/1.jpg", "which is no image of train"), ("\n", "names no image")):  # fmt: skip
        listed.write_text(content)
        with pytest.raises(BadData, match=says):
            base.load(f"folder:{root}?labels={listed}")
    for absent in (tmp_path / "absent", ""):
        with pytest.raises(BadData, match="cannot be read as text"):
            base.load(f"folder:{root}?labels={absent}")


@pytest.mark.shared
def test_real_data_are_checked(shared: Path, command: Command) -> None:
    flowers = check(command, f"folder:{shared}/data/flowers12")
    (found,) = flowers["duplicates"]
    assert found["train"] == ["train/iris/image_0469.jpg"] and found["val"] == ["train/iris/image_0422.jpg"]
    part = check(command, f"imagenet:{shared}/data/imagenette?partial")
    assert part["images"] == {"train": 370, "val": 130, "test": 300} and not part["duplicates"]
    assert check(command, f"folder:{shared}/data/photos")["sides"]["shorter"] == [279, 353, 900]
