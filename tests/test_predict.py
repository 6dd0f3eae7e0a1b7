"""`twofold predict`, and the classifier that `twofold probe` leaves for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twofold import results
from twofold.datasets import base as datasets
from twofold.estimators import DiffusionClassifier
from twofold.steps import _classifier

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def probed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished probe of two heads."""
    from twofold import cli

    folder = tmp_path_factory.mktemp("probed") / "run"
    arguments = ["probe", "--model", f"run:{tiny_run}", "--data", "digits", "--out", str(folder), "--block", "mid"]
    arguments += ["--t", "30", "--pool", "2", "--head", "ridge,knn", "--controls", "pixels"]
    assert cli.run([*arguments, "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty test images of digits in folders by their label, as files."""
    folder, rows = tmp_path_factory.mktemp("pictures"), datasets.load("digits").build("test")
    for k, image in enumerate(rows.read(range(40))):
        path = folder / str(rows.labels[k]) / f"{k:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    return folder


def asked(command: Command, *arguments: object) -> list[dict[str, Any]]:
    code, out, err = command("predict", *arguments, "--device", "cpu", "--json", "--quiet")
    assert code == 0, err
    images: list[dict[str, Any]] = json.loads(out)["images"]
    return images


def test_images_get_their_labels(probed: Path, pictures: Path, command: Command) -> None:
    told = asked(command, "--classifier", probed / "classifier", pictures)
    paths = sorted(pictures.rglob("*.png"))
    assert [one["image"] for one in told] == [str(p) for p in paths]
    right = [one["label"] == Path(one["image"]).parent.name for one in told]
    assert np.mean(right) > 0.8
    assert all(list(one["probabilities"]) == [one["label"]] for one in told)


def test_the_kept_classifier_is_of_the_model_and_the_head_that_val_prefers(probed: Path) -> None:
    scores = {s.about["head"]: s for s in results.read(probed) if s.name == "top1" and not s.about["control"]}
    kept = json.loads((probed / "classifier" / "classifier.json").read_text())
    best = max(scores, key=lambda head: scores[head].about["val"])
    assert kept["head"] == best and kept["about"]["val"] == scores[best].about["val"]
    assert kept["model"] == scores[best].about["model"] and kept["about"]["data"] == "digits"
    assert kept["about"]["chosen"] == scores[best].about["chosen"][0] and kept["reading"]["seed"] == 0


def test_a_better_classifier_takes_the_place_and_a_worse_one_does_not(tiny_run: Path, tmp_path: Path) -> None:
    fitted = DiffusionClassifier("pixels:8", head="ridge").fit(
        np.arange(256, dtype=np.uint8).reshape(4, 8, 8), [0, 1] * 2
    )
    for val, kept in ((0.5, 0.5), (0.4, 0.5), (0.5, 0.5), (0.6, 0.6)):
        one = fitted._classifier()
        one.about.update(val=val)
        _classifier.keep_best(one, tmp_path / "kept")
        assert json.loads((tmp_path / "kept" / "classifier.json").read_text())["about"]["val"] == kept


def test_several_likeliest_labels_with_their_probabilities(probed: Path, pictures: Path, command: Command) -> None:
    image = next(pictures.rglob("*.png"))
    told = asked(command, image, image, "--classifier", probed / "classifier", "--top", "3")
    assert len(told) == 2 and told[0] == told[1]
    chances = list(told[0]["probabilities"].values())
    assert chances == sorted(chances, reverse=True) and len(chances) == 3
    everything = asked(command, image, "--classifier", probed / "classifier", "--top", "99")[0]["probabilities"]
    assert len(everything) == 10 and sum(everything.values()) == pytest.approx(1, abs=1e-4)


def test_a_table_for_people(probed: Path, pictures: Path, command: Command) -> None:
    code, out, _ = command("predict", "--classifier", probed / "classifier", pictures / "3", "--top", 2, "--quiet")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["image", "label", "%", "label", "%"]
    assert len(lines) == 2 + len(list((pictures / "3").iterdir())) and lines[2].startswith(str(pictures / "3"))


def test_python_and_the_command_say_the_same(probed: Path, pictures: Path, command: Command) -> None:
    paths = sorted(pictures.rglob("*.png"))
    told = asked(command, "--classifier", probed / "classifier", *paths, "--batch", "7")
    found = DiffusionClassifier.load(probed / "classifier", device="cpu").predict(paths)
    assert found.tolist() == [one["label"] for one in told]


def test_a_network_that_moved(probed: Path, pictures: Path, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    moved = shutil.copytree(tiny_run, tmp_path / "moved")
    folder = shutil.copytree(probed / "classifier", tmp_path / "classifier")
    told = (folder / "classifier.json").read_text().replace(str(tiny_run), "gone")
    (folder / "classifier.json").write_text(told)
    image = next(pictures.rglob("*.png"))
    code, _, err = command("predict", "--classifier", folder, image)
    assert code == 2 and "gone" in err
    assert asked(command, "--classifier", folder, image, "--model", moved)
    code, _, err = command("predict", "--classifier", folder, image, "--model", f"{moved}?untrained")
    assert code == 2 and "is not the network that this classifier was fitted on" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "predict needs IMAGES and --classifier"),
        (["IMAGE"], "predict needs --classifier"),
        (["--classifier", "CLASSIFIER"], "predict needs IMAGES"),
        (["--classifier", "nowhere", "IMAGE"], "nowhere is no classifier"),
        (["--classifier", "PROBE", "IMAGE"], "has no classifier.json. Give RUN/classifier"),
        (["--classifier", "CLASSIFIER", "nowhere.png"], "nowhere.png does not exist"),
        (["--classifier", "CLASSIFIER", "EMPTY"], "holds no images"),
        (["--classifier", "CLASSIFIER", "IMAGE", "BROKEN"], "broken.png does not decode"),
        (["--classifier", "CLASSIFIER", "CUT"], "cut.png does not decode"),
        (["--classifier", "CLASSIFIER", "IMAGE", "--top", "0"], "--top must be at least 1"),
        (["--classifier", "CLASSIFIER", "IMAGE", "--device", "gpu"], "No device 'gpu'"),
        (["--classifier", "CLASSIFIER", "IMAGE", "--model", "run:nowhere"], "nowhere is not a folder"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, probed: Path, pictures: Path, tmp_path: Path, command: Command
) -> None:
    image = next(pictures.rglob("*.png"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:-30])
    named = {
        "CLASSIFIER": probed / "classifier", "PROBE": probed, "IMAGE": image, "EMPTY": tmp_path / "empty",
        "BROKEN": tmp_path / "broken.png", "CUT": tmp_path / "cut.png",
    }  # fmt: skip
    code, out, err = command("predict", *(named.get(a, a) for a in arguments), "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err
