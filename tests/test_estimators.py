"""scikit-learn's interface: its own checks, and what must hold of images, noise and remembered features."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from twofold import noise
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadData, BadModel, BadRun, BadSetting, BadStore, UserError
from twofold.estimators import DiffusionClassifier, DiffusionFeatures
from twofold.steps import _fill, _images, _remembered


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Sixty grey images of 8 x 8, six of each digit."""
    rows = datasets.load("digits").build("train")
    some = np.concatenate([np.flatnonzero(rows.labels == k)[:6] for k in range(10)])
    return rows.read(some).numpy()[:, 0], rows.labels[some]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remembered, "REMEMBERED", _remembered.Remembered(2**30))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every reading."""
    seen: list[int] = []
    read = _fill.read

    def counted(backbone: Any, rows: Any, *rest: Any) -> Any:
        seen.append(len(rows))
        return read(backbone, rows, *rest)

    monkeypatch.setattr(_fill, "read", counted)
    return seen


@pytest.fixture
def network(tiny_run: Path) -> dict[str, Any]:
    """Where the tiny network is read."""
    return {"model": f"run:{tiny_run}", "block": "mid", "t": 30, "device": "cpu", "precision": "fp32"}


# scikit-learn's checks give tables of numbers; here each row becomes a square picture of itself.


def pictures(rows: np.ndarray) -> np.ndarray:
    grey = np.clip(rows * 16 + 128, 0, 255).round().astype(np.uint8)
    return np.repeat(grey[:, None, :], grey.shape[1], 1)


class OfRows:
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags

    def _seen(self, rows: Any) -> np.ndarray:
        check_is_fitted(self)
        return pictures(validate_data(self, rows, reset=False))


class ClassifierOfRows(OfRows, DiffusionClassifier):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
        images = pictures(validate_data(self, X) if y is None else validate_data(self, X, y)[0])
        return super().fit(images, y)

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        return super().predict_proba(self._seen(X))


class FeaturesOfRows(OfRows, DiffusionFeatures):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        return super().fit(pictures(validate_data(self, X)))

    def transform(self, X: Any) -> Any:  # noqa: N803
        return super().transform(self._seen(X))


OURS = "refused with an error of this project's own tree, which is no ValueError"
NOT_MEANT = {
    "check_classifiers_one_label": "a head needs two classes, and says so",
    "check_fit2d_1sample": f"one image has one class: {OURS}",
    "check_requires_y_none": OURS,
    "check_transformer_preserve_dtypes": "images are uint8 and features float32, whatever the dtype of a table",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "estimator",
    [ClassifierOfRows("pixels:8", pool=8, head="ridge"), FeaturesOfRows("pixels:8", pool=8)],
    ids=["classifier", "features"],
)
def test_what_scikit_learn_checks(estimator: Any) -> None:
    found = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=NOT_MEANT)
    assert len(found) > 40
    failed = {one["check_name"]: repr(one["exception"]) for one in found if one["status"] == "failed"}
    assert not failed


@pytest.mark.parametrize("kind", [DiffusionFeatures, DiffusionClassifier])
def test_parameters_are_stored_as_given_and_cloned(kind: Any) -> None:
    given = {"block": 3, "t": 90.0, "pool": 2, "draws": 2, "seed": 5, "memory": "kept", "dtype": "float32"}
    made = kind("run:nowhere", **given)
    assert {name: made.get_params()[name] for name in given} == given
    assert clone(made).get_params() == made.get_params()
    assert "run:nowhere" in repr(made) and not [name for name in vars(made) if name.endswith("_")]
    assert made.set_params(block="mid").block == "mid"


def forms(grey: np.ndarray, folder: Path) -> Iterator[tuple[str, Any]]:
    """The same images in every form that is taken."""
    colour = np.repeat(grey[..., None], 3, -1)
    yield "grey", grey
    yield "last", colour
    yield "first", np.moveaxis(colour, -1, 1)
    yield "torch", torch.from_numpy(colour)
    yield "list of arrays", [*colour[:3], *np.moveaxis(colour[3:6], -1, 1), *grey[6:]]
    yield "read only", np.broadcast_to(colour, colour.shape)
    yield "pictures", [Image.fromarray(image) for image in grey]
    paths = []
    for k, image in enumerate(grey):
        paths.append(folder / f"{k}.png")
        Image.fromarray(image).save(paths[-1])
    yield "paths", paths
    yield "text", [str(path) for path in paths]
    yield "array of text", np.array([str(path) for path in paths])


def test_the_same_images_have_the_same_features_in_every_form(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], tmp_path: Path, passes: list[int]
) -> None:
    features = DiffusionFeatures(**network, pool=2)
    wanted = features.fit_transform(digits[0][:9])
    assert wanted.shape == (9, 64) and wanted.dtype == np.float32
    for name, images in forms(digits[0][:9], tmp_path):
        np.testing.assert_array_equal(features.transform(images), wanted, err_msg=name)
    assert passes == [9]


def test_noise_belongs_to_the_image(digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any]) -> None:
    """Features are those of the noise that an image's own number gives, whatever comes beside it."""
    images = digits[0][:7]
    whole = DiffusionFeatures(**network, dtype="float32").fit_transform(images)
    for rows in ([6, 2, 4], [3]):
        _remembered.REMEMBERED = _remembered.Remembered(2**30)
        alone = DiffusionFeatures(**network, dtype="float32", batch=2).fit_transform(images[rows])
        np.testing.assert_allclose(alone, whole[rows], rtol=1e-4, atol=1e-5)

    backbone = backbones.load(network["model"], device="cpu", precision="fp32")
    grey = _images.picture(images[3])
    x = backbone.preprocess(grey[None])
    own = torch.from_numpy(noise.normal(0, [_images.own_number(grey)], x.shape[1:]))
    by_hand = backbone.features(x, 30, ["mid"], own)["mid"].mean((2, 3))
    np.testing.assert_allclose(whole[3], by_hand[0], rtol=1e-4, atol=1e-5)
    other = DiffusionFeatures(**network, dtype="float32", seed=1).fit_transform(images)
    assert np.abs(other - whole).max() > 0.01


def test_an_image_number_is_of_its_pixels_and_size() -> None:
    one = torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4)
    changed = one.clone()
    changed[2, 1, 3] += 1
    numbers = {_images.own_number(p) for p in (one, changed, one.reshape(3, 4, 2), one.flip(0))}
    assert len(numbers) == 4 and all(0 <= n < 2**63 for n in numbers)
    assert _images.own_number(one.clone()) == _images.own_number(one)


def test_a_search_over_heads_reads_each_image_once(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], passes: list[int]
) -> None:
    images, labels = digits
    classifier = DiffusionClassifier(**network, pool=2)
    search = GridSearchCV(classifier, {"head": ["ridge", "knn", "logistic"]}, cv=3, error_score="raise")
    search.fit(images, labels)
    assert sum(passes) == len(images)
    assert search.best_estimator_.head in ("ridge", "knn", "logistic")
    assert sum(passes) == len(images) and (search.predict(images) == labels).mean() > 0.9


def test_a_search_over_places_reads_each_image_once_a_place(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], passes: list[int]
) -> None:
    images, labels = digits
    grid = {"block": ["mid", 1], "t": [10, 90], "pool": [1, 2]}
    search = GridSearchCV(DiffusionClassifier(**network, head="ridge"), grid, cv=2, error_score="raise")
    search.fit(images, labels)
    assert len(search.cv_results_["params"]) == 8 and sum(passes) == 8 * len(images)
    assert search.best_score_ > 0.3


def test_a_pipeline_with_scikit_learns_own_heads(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], passes: list[int]
) -> None:
    images, labels = digits
    line = make_pipeline(DiffusionFeatures(**network), StandardScaler(), RidgeClassifier())
    grid = {"diffusionfeatures__pool": [1, 2], "ridgeclassifier__alpha": [1.0, 100.0]}
    search = GridSearchCV(line, grid, cv=3, error_score="raise").fit(images, labels)
    assert sum(passes) == 2 * len(images) and search.score(images, labels) > 0.9
    assert line.fit(images, labels)[:1].get_feature_names_out().tolist()[0] == "diffusionfeatures0"
    assert cross_val_score(line, list(images), labels, cv=2).shape == (2,)


def test_features_are_kept_in_a_folder(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], passes: list[int], tmp_path: Path
) -> None:
    images = digits[0][:12]
    features = DiffusionFeatures(**network, memory=tmp_path / "kept")
    first = features.fit_transform(images[:8])
    _remembered.REMEMBERED = _remembered.Remembered(2**30)  # as another process begins
    again = features.transform(images[::-1])
    np.testing.assert_array_equal(again[4:], first[::-1])
    assert passes == [8, 4]
    table = next((tmp_path / "kept").iterdir())
    assert json.loads((table / "about.json").read_text())["cell"] == "b5_t30_p1"
    # What one reading wrote is not what another asks for.
    DiffusionFeatures(**{**network, "seed": 1}, memory=tmp_path / "kept").fit_transform(images)
    assert passes == [8, 4, 12]

    next(table.glob("rows-*")).write_bytes(b"not that")
    _remembered.REMEMBERED = _remembered.Remembered(2**30)
    with pytest.raises(BadStore, match=r"rows-\w+\.safetensors is damaged"):
        features.transform(images)


def test_what_is_remembered_has_an_end() -> None:
    memory = _remembered.Remembered(limit=10 * 40)
    for k in range(100):
        memory.put("table", {k: np.zeros(10, np.float32)})
        memory.get("table", [0])
        assert memory.size <= 400
    # The latest used: 0 was asked for all the time.
    assert sorted(memory.get("table", range(100))) == [0, *range(91, 100)]
    assert not memory.get("other", range(100))


def test_a_network_that_changes_is_loaded_again(
    digits: tuple[np.ndarray, np.ndarray], tiny_run: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    features = DiffusionFeatures(f"run:{copy}", "mid", t=30).fit(digits[0])
    before = features.transform(digits[0])
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(BadModel, match="another network now"):
        features.transform(digits[0])
    assert not np.allclose(features.fit_transform(digits[0]), before)


@pytest.mark.parametrize("head", ["ridge", "attention?tokenizer=p2&width=16&updates=5&epochs=1"])
def test_labels_of_any_kind_and_probabilities(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], head: str
) -> None:
    images, labels = digits
    names = np.array(list("jihgfedcba"))[labels]
    classifier = DiffusionClassifier(**network, head=head).fit(images, names)
    assert classifier.classes_.tolist() == list("abcdefghij")
    chances = classifier.predict_proba(images)
    assert chances.shape == (60, 10) and chances.min() >= 0
    np.testing.assert_allclose(chances.sum(1), 1)
    assert (classifier.predict(images) == classifier.classes_[chances.argmax(1)]).all()
    assert classifier.score(images, names) == (classifier.predict(images) == names).mean()


def test_what_is_chosen_does_not_depend_on_the_order(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any]
) -> None:
    images, labels = digits
    order = np.random.default_rng(0).permutation(len(images))
    one, other = (DiffusionClassifier(**network, pool=2, head="ridge") for _ in range(2))
    one.fit(images, labels)
    other.fit(images[order], labels[order])
    assert one.head_.choice == other.head_.choice
    np.testing.assert_allclose(one.predict_proba(images), other.predict_proba(images), atol=1e-5)
    # Without a choice it is the middle strength, and with one it may be another: here it is.
    assert DiffusionClassifier(**network, pool=2, head="ridge", val=0).fit(images, labels).head_.choice["strength"]


def test_a_fitted_classifier_survives_pickling(digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any]) -> None:
    fitted = DiffusionClassifier(**network, head="ridge").fit(*digits)
    kept = pickle.dumps(fitted)
    assert len(kept) < 100_000  # the network is not in it
    np.testing.assert_array_equal(pickle.loads(kept).predict(digits[0]), fitted.predict(digits[0]))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((4, 8, 8)), "float64; uint8, 0 to 255"),
        (np.zeros((4, 8), np.uint8), r"shape \(4, 8\)"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"shape \(4, 8, 8, 4\)"),
        (np.zeros((0, 8, 8), np.uint8), r"shape \(0, 8, 8\)"),
        ([], "no images"),
        ("one.png", "one path; images come as a list"),
        (["nowhere.png"], r"nowhere.png does not exist"),
        (["."], r"\. is a folder"),
        ([np.zeros((8, 8), np.uint8), 7], "Image 1 is a int"),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8))], "Image 1 is of type float64"),
        (7, "Images are a int"),
        (None, "Images are a NoneType"),
    ],
)
def test_what_is_no_image_is_one_clear_line(images: Any, says: str) -> None:
    for work in (DiffusionFeatures("pixels:8").fit, lambda x: DiffusionClassifier("pixels:8").fit(x, [0, 1])):
        with pytest.raises(BadData, match=says) as refusal:
            work(images)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"t": None}, "give t or sigma"),
        ({"sigma": 0.3}, "Both --t and --sigma"),
        ({"block": None}, "Give one block"),
        ({"block": "middle"}, "No block in .* 'middle'"),
        ({"block": "all"}, "one block"),
        ({"t": 5000}, "0 to 999"),
        ({"t": "soon"}, "--t must be a number"),
        ({"pool": 64}, "Pool 64 is larger"),
        ({"pool": 0}, "This head reads pooled rows"),
        ({"head": "attention", "pool": 1}, "This head reads maps"),
        ({"head": "difformer"}, "reads several maps side by side"),
        ({"head": "rigde"}, "Did you mean 'ridge'"),
        ({"draws": 0}, "--draws must be at least 1"),
        ({"dtype": "float8"}, "float16"),
        ({"device": "gpu"}, "No device 'gpu'"),
        ({"label": 3}, "knows no classes"),
        ({"model": "run:nowhere"}, "nowhere is not a folder"),
        ({"val": 1}, "val must be a share"),
        ({"val": "some"}, "val must be a share"),
    ],
    ids=lambda value: " ".join(map(str, value.items())) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_one_line_when_it_is_fitted(
    given: dict[str, Any], says: str, network: dict[str, Any], digits: tuple[np.ndarray, np.ndarray], passes: list[int]
) -> None:
    with pytest.raises(UserError, match=says):
        DiffusionClassifier(**{**network, **given}).fit(*digits)
    assert not passes


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1], "3 images and 2 labels"),
        ([1, 1, 1], "3 labels are of one class"),
        (None, "y to be passed"),
        ([0.5, 1.25, 2.5], "Unknown label type|continuous"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, says: str) -> None:
    with pytest.raises((BadData, ValueError), match=says):
        DiffusionClassifier("pixels:8").fit(np.zeros((3, 8, 8), np.uint8), labels)


def test_asked_before_it_was_fitted(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        DiffusionFeatures("pixels:8").transform(digits[0])
    for ask in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(DiffusionClassifier("pixels:8"), ask)(digits[0])
    with pytest.raises(NotFittedError):
        DiffusionClassifier("pixels:8").save(tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_features_that_their_format_cannot_hold_are_refused(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _fill.read
    monkeypatch.setattr(_fill, "read", lambda *given: 1e6 * read(*given))
    with pytest.raises(BadSetting, match=r"float16 cannot hold. Give dtype float32"):
        DiffusionFeatures(**network).fit_transform(digits[0])
    assert np.isfinite(DiffusionFeatures(**network, dtype="float32").fit_transform(digits[0])).all()


# Classifiers in folders.


@pytest.fixture
def saved(digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], tmp_path: Path) -> Path:
    DiffusionClassifier(**network, pool=2, seed=3, head="ridge").fit(*digits).save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("head", ["ridge", "knn", "mlp?hidden=8&updates=5&epochs=1", "cnn?width=8&updates=5"])
@pytest.mark.parametrize("text", [False, True])
def test_what_is_saved_answers_the_same(
    digits: tuple[np.ndarray, np.ndarray], network: dict[str, Any], tmp_path: Path, head: str, text: bool
) -> None:
    images, labels = digits
    fitted = DiffusionClassifier(**network, draws=2, seed=3, head=head).fit(
        images, labels.astype(str) if text else labels
    )
    fitted.save(tmp_path / "saved")
    assert not [p for p in (tmp_path / "saved").iterdir() if p.suffix not in (".json", ".safetensors")]
    again = DiffusionClassifier.load(tmp_path / "saved", device="cpu")
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))
    assert again.predict(images).tolist() == fitted.predict(images).tolist()
    assert again.head_.choice == fitted.head_.choice
    # It can be fitted again like any other.
    assert clone(again).get_params()["draws"] == 2


def test_saving_again_replaces_and_nothing_else_is_replaced(
    saved: Path, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    images, labels = digits
    other = DiffusionClassifier("pixels:8", head="knn", pool=8).fit(images, labels)
    other.save(saved)
    assert len(list(saved.iterdir())) == 2
    assert DiffusionClassifier.load(saved).head == "knn"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(BadRun, match="is there and is no classifier"):
            other.save(folder)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        path = folder / "classifier.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return work


def weights(folder: Path) -> Path:
    return next(folder.glob("learned-*"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda f: (f / "classifier.json").unlink(), "is no classifier: it has no classifier.json"),
    "no JSON": (lambda f: (f / "classifier.json").write_text("{"), "classifier.json is damaged"),
    "a list": (lambda f: (f / "classifier.json").write_text("[]"), "classifier.json is damaged"),
    "no head": (edited(lambda t: t.pop("head")), "lacks head"),
    "head of another kind": (edited(lambda t: t.update(head="knn")), "damaged"),
    "unknown head": (edited(lambda t: t.update(head="rdge")), "damaged.*Did you mean 'ridge'"),
    "no weights": (lambda f: weights(f).unlink(), r"learned-\w+.safetensors is not there"),
    "other weights": (lambda f: weights(f).write_bytes(b"0" * 99), "is not as it was written"),
    "weights elsewhere": (edited(lambda t: t.update(file="../x")), r"damaged: its file \.\./x is not there"),
    "missing tensor": (edited(lambda t: t["learned"].update(weight_={"array": "elsewhere"})), "damaged"),
    "missing name": (edited(lambda t: t["learned"].pop("scale_")), "damaged"),
    "a method": (edited(lambda t: t["learned"].update(scores={"array": "weight_"})), "scores is not a learned name"),
    "strange record": (
        edited(lambda t: t["learned"]["scale_"].update(record="os.system")), "'os.system' is no record of a head"
    ),
    "strange value": (edited(lambda t: t["learned"].update(weight_={"shell": "ls"})), "no known kind: shell"),
    "cell": (edited(lambda t: t.update(cell="b5")), "'b5' is not a tap"),
    "cell of other size": (edited(lambda t: t.update(cell="b5_t30_p1")), "damaged"),
    "block": (edited(lambda t: t.update(cell="b99_t30_p2")), "has no block 99"),
    "step": (edited(lambda t: t.update(cell="b5_t3000_p2")), "0 to 999"),
    "labels": (edited(lambda t: t["labels"].pop()), "labels of shape"),
    "reading": (edited(lambda t: t["reading"].update(draws=0)), "--draws must be at least 1"),
    "strange setting": (edited(lambda t: t["reading"].update(dras=1)), "Did you mean 'draws'"),
    "fingerprint": (edited(lambda t: t.update(fingerprint="0")), "not the network that this classifier was fitted on"),
    "model": (edited(lambda t: t.update(model="run:gone")), "gone is not a folder"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_folder_is_one_line(damage: str, saved: Path, command: Callable[..., Any]) -> None:
    work, says = DAMAGE[damage]
    work(saved)
    with pytest.raises(UserError, match=says) as refusal:
        DiffusionClassifier.load(saved, device="cpu")
    assert "\n" not in str(refusal.value)


def test_a_network_that_moved_is_named(saved: Path, tiny_run: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    edited(lambda told: told.update(model="run:gone"))(saved)
    found = DiffusionClassifier.load(saved, model=str(tiny_run), device="cpu")
    assert found.model == str(tiny_run) and found.predict(digits[0]).shape == (60,)
    with pytest.raises(BadModel, match=re.escape("pixels:8 is not the network")):
        DiffusionClassifier.load(saved, model="pixels:8")
