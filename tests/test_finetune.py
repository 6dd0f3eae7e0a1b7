"""Training through a network: what gets gradients, what a kill leaves, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

import processes
from twofold import files, noise, results
from twofold.backbones import _adm, _unet
from twofold.backbones import base as backbones
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones.base import DiffusionBackbone, Placement
from twofold.datasets import base as datasets
from twofold.heads import base as heads
from twofold.heads._training import Candidate
from twofold.records import Cell, Tap
from twofold.steps import _epochs, _shots, _through, _trials, _tuned, _tuner

Command = Callable[..., tuple[int, str, str]]
CELL = Cell(Tap(6, 30.0), 0)
P2 = "attention?tokenizer=p2&width=16"
SECONDS = 120.0  # the longest wait for other processes


@pytest.fixture
def backbone(tiny_run: Path) -> DiffusionBackbone:
    found = backbones.load(f"run:{tiny_run}", device="cpu", precision="fp32")
    assert isinstance(found, DiffusionNetwork)
    return found


@pytest.fixture
def batch(backbone: DiffusionBackbone) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = datasets.load("digits").build("train")
    x = backbone.preprocess(rows.read(range(12)))
    own = torch.from_numpy(noise.normal(0, rows.index[:12], x.shape[1:]))
    return x, own, torch.from_numpy(rows.labels[:12])


def through(backbone: Any, mode: str, cell: Cell = CELL, head: str = P2) -> _through.Through:
    pairs = _through.mirror_pairs(backbone) if mode == "difffeed" else {}
    return _through.Through(backbone, [cell], heads.load(head), 10, mode, 0, pairs)  # type: ignore[arg-type]


def loss(network: _through.Through, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(network(*batch[:2]), batch[2])


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_difffeed_has_the_papers_pairs_and_parameters() -> None:
    """P2 (PAPER.md 1.5), for 1000 classes on ADM-256: 27,786,216 of the head and 2,759,680 of the feedback."""
    shape = _adm.Shape((256, 256, 512, 512, 1024, 1024), 2, (False,) * 3 + (True,) * 3, 256, 3, 6, 0, True, True)
    unet = _unet.make(
        _adm.config(shape, _adm.Heads(64, None, False), {"image_size": 256}), torch.float32, weights=False
    )
    adm = _unet.backbone(unet, DDPMScheduler(), Placement(torch.device("meta"), torch.float32), name="adm-256")
    pairs = _through.mirror_pairs(adm)
    assert pairs == {21: 17, 24: 14, 27: 11, 30: 8, 33: 5, 36: 2}
    head = heads.load("attention?tokenizer=p2")
    network = _through.Through(adm, [Cell(Tap(24, 150.0), 0)], head, 1000, "difffeed", 0, pairs)  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.feedback.parameters()) == 2_759_680
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 30_545_896


def test_difffeed_adds_what_the_decoder_knew_to_its_mirrors(backbone: Any, batch: Any) -> None:
    """Step by step (PAPER.md 1.5): sums after the encoder's blocks are also what its skip connections carry."""
    network = through(backbone, "difffeed").eval()
    assert network.pairs == {6: 4, 8: 2}
    x, own, _ = batch
    x_t = backbone.noised(x, 30, own)
    known = backbone.features(x_t, 30, [6, 8])
    extra = {e: network.feedback[str(b)](known[b]) for b, e in network.pairs.items()}
    seen: dict[str, Any] = {}

    def catch(module: Any, inputs: Any, output: Any) -> None:
        seen["skips"] = inputs[0]

    # The last ResBlock of the decoder reads what came up, and beside it block 2's output through its skip.
    reader = backbone.network.up_blocks[1].resnets[0]
    handle = reader.register_forward_hook(catch)
    try:
        whole = backbone.maps(x_t, 30, [2, 4, 9], added=extra)
    finally:
        handle.remove()
    before = backbone.maps(x_t, 30, [2])[2]
    torch.testing.assert_close(whole[2], before + extra[2])
    width = whole[2].shape[1]
    assert torch.equal(seen["skips"][:, -width:], whole[2])
    with torch.no_grad():
        scores = network.head(network.norms[0](backbone.maps(x_t, 30, [6], added=extra)[6]))
        torch.testing.assert_close(network(x, own), scores)
    nothing = {e: torch.zeros_like(m) for e, m in extra.items()}
    assert torch.equal(backbone.maps(x_t, 30, [9], added=nothing)[9], backbone.features(x_t, 30, [9])[9])


@pytest.mark.parametrize("mode", _through.MODES)
def test_what_is_trained_and_what_is_not(mode: str, backbone: Any, batch: Any) -> None:
    network = through(backbone, mode)
    weights = dict(backbone.network.named_parameters())
    before = {name: w.detach().clone() for name, w in weights.items()}
    tuner = _tuner.Tuner(network, "strong", epochs=1, candidates=(Candidate(1e-2, 0.05),))
    heads_before = {name: p.detach().clone() for name, p in network.head.named_parameters()}
    feeds_before = {name: p.detach().clone() for name, p in network.feedback.named_parameters()}
    network.train()
    for _ in range(2):
        tuner._update(*batch, len(batch[0]))
    upto = set(backbone.weights(6)) if mode == "full" else set()
    with_gradient = {name for name, w in weights.items() if w.grad is not None}
    assert with_gradient == upto and changed(before, {n: w.detach() for n, w in weights.items()}) == upto
    assert changed(heads_before, dict(network.head.named_parameters()))
    moved = changed(feeds_before, dict(network.feedback.named_parameters()))
    assert moved == set(feeds_before) and bool(moved) is (mode == "difffeed")
    # No block behind the one that is read is trained.
    assert not any(name.startswith(("up_blocks.1", "conv_out")) for name in upto)


def backward_of(network: _through.Through, batch: Any) -> tuple[int, int]:
    """Multiplications of the backward pass, and bytes that the forward pass keeps for it beside the weights."""
    own = {p.data_ptr() for p in network._backbone[0].network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        found = loss(network, batch)
    with FlopCounterMode(display=False) as counter:
        found.backward()
    return counter.get_total_flops(), sum(kept.values())


def test_feedback_never_computes_gradients_of_frozen_weights(backbone: Any, batch: Any) -> None:
    """Beside the same network whose weights want gradients, as in the released code (PAPER.md 6.1)."""
    lean_work, lean_kept = backward_of(through(backbone, "difffeed"), batch)
    assert all(p.grad is None for p in backbone.network.parameters())
    backbone.network.requires_grad_(True)
    work, kept = backward_of(through(backbone, "difffeed"), batch)
    assert any(p.grad is not None for p in backbone.network.parameters())
    assert lean_work < 0.75 * work and lean_kept < kept


@pytest.mark.parametrize("mode", ["full", "difffeed"])
def test_checkpointing_keeps_less_and_gives_the_same(mode: str, tiny_run: Path, batch: Any) -> None:
    found = []
    for again in (False, True):
        own = backbones.load(f"run:{tiny_run}", device="cpu", precision="fp32")
        assert isinstance(own, DiffusionBackbone)
        if again:
            own.recompute()
        network = through(own, mode)
        _, kept = backward_of(network, batch)
        found.append((kept, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}))
    (plain, gradients), (less, same) = found
    assert less < 0.9 * plain and gradients.keys() == same.keys() and len(same) > 4
    assert all(torch.equal(gradient, same[name]) for name, gradient in gradients.items())


def test_maps_are_features_with_gradients(backbone: Any, batch: Any) -> None:
    x, own, _ = batch
    plain = backbone.features(x, 30, [2, "mid"], own)
    x = x.clone().requires_grad_()
    found = backbone.maps(x, 30, [2, "mid"], own)
    assert all(torch.equal(found[b].detach(), plain[b]) for b in plain)
    found["mid"].sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0 and not plain["mid"].requires_grad


def test_every_pass_has_draws_of_its_own_that_belong_to_the_image(backbone: Any) -> None:
    rows = datasets.load("digits").build("val")

    def seen(batch: int, epoch: int | None, augment: tuple[str, ...] = ("crop", "flip")) -> dict[int, bytes]:
        stream = _epochs.Stream(backbone, rows, 0, batch, augment)
        found, order = {}, noise.generator(0, epoch or 0, purpose=noise.ORDER).permutation(len(rows))
        parts = stream.plain() if epoch is None else stream.epoch(epoch)
        position = 0
        for x, own, labels in parts:
            for image, eps, label in zip(x, own, labels, strict=True):
                row = position if epoch is None else int(order[position])
                assert label == rows.labels[row]
                found[row] = image.numpy().tobytes() + eps.numpy().tobytes()
                position += 1
        return found

    first = seen(32, 0)
    assert len(first) == len(rows) and first == seen(50, 0)
    other = seen(32, 1)
    assert not any(first[row] == other[row] for row in first)
    assert seen(32, None) == seen(7, None, ("none",))


ARGUMENTS = ("finetune", "--data", "digits", "--block", "up.0.0", "--t", "30", "--device", "cpu", "--precision", "fp32")


def finetune(command: Command, model: object, out: Path, *more: object) -> tuple[int, str, str]:
    return command(*ARGUMENTS, "--model", model, "--out", out, *more, "--quiet")


@pytest.mark.parametrize("mode", _through.MODES)
def test_digits_are_learned(mode: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    more = ("--mode", mode, "--epochs", 3, "--rates", "0.01,0.003", "--augment", "crop", "--batch", 32)
    more += ("--head", P2 if mode == "difffeed" else "linear", "--pool", 0 if mode == "difffeed" else 2)
    code, out, err = finetune(command, tiny_run, tmp_path / "run", *more)
    assert code == 0, err
    (score,) = results.read(tmp_path / "run")
    told = files.read_lines(tmp_path / "run" / "metrics.jsonl")
    each = [(one["rate"], one["epoch"]) for one in told]
    assert sorted(each) == [(r, e) for r in (0.003, 0.01) for e in (1, 2, 3)]
    # The heads of a frozen network share its passes over the images.
    assert each[1] == ((0.003, 1) if mode == "frozen" else (0.01, 2))
    best = max(told, key=lambda one: one["val"])
    assert score.about["chosen"] == [{name: best[name] for name in ("rate", "decay", "epoch", "val")}]
    assert score.split == "test" and score.n == 450 and score.value > 0.5, told
    assert f"{score.about['trained']:,}" in out
    assert finetune(command, tiny_run, tmp_path / "run", *more)[1] == out
    assert not (tmp_path / "run" / "state.pt").exists()


def test_what_full_leaves_is_a_model_of_its_own(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    """Its features and its head answer as the run did, to rounding; from random weights it is P1's U-Net encoder."""
    run = tmp_path / "run"
    code, _, err = finetune(command, f"{tiny_run}?untrained", run, "--mode", "full", "--epochs", 1)
    assert code == 0, err
    tuned = backbones.load(str(run), device="cpu", precision="fp32")
    weights = load_file(run / "best.safetensors")
    network = through(tuned, "frozen", Cell(Tap(6, 30.0), 1), "linear")
    network.load_state_dict({name: w for name, w in weights.items() if not name.startswith("own.")})
    stream = _epochs.Stream(tuned, datasets.load("digits").build("test"), 0, 64)
    found = _tuner.scores(network, stream, False).argmax(1).numpy() == stream.rows.labels
    assert found.mean() == results.read(run)[0].value
    assert tuned.fingerprint != backbones.load(f"{tiny_run}?untrained", device="cpu").fingerprint


def test_heads_trained_in_one_pass_are_those_trained_one_by_one(
    tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    more = ("--mode", "frozen", "--pool", 2, "--epochs", 2, "--batch", 128)
    assert finetune(command, tiny_run, tmp_path / "both", *more, "--rates", "0.001,0.01", "--decays", "0,1")[0] == 0
    both = files.read_lines(tmp_path / "both" / "metrics.jsonl")
    assert [(one["rate"], one["decay"]) for one in both[:4]] == [(0.001, 0), (0.001, 1), (0.01, 0), (0.01, 1)]
    assert finetune(command, tiny_run, tmp_path / "one", *more, "--rates", "0.01", "--decays", "1")[0] == 0
    alone = files.read_lines(tmp_path / "one" / "metrics.jsonl")
    assert [one for one in both if (one["rate"], one["decay"]) == (0.01, 1)] == alone


JOINS = "difformer?width=16&attention_heads=2"


def test_a_head_that_joins_maps_sees_those_of_a_store(tiny_run: Path, backbone: Any, batch: Any) -> None:
    """Every block at every step, read in one pass a step, in the order in which `probe` has them."""
    cells = [Cell(Tap(block, t), 0) for block in (5, 6) for t in (30.0, 60.0)]
    network = _through.Through(backbone, cells, heads.load(JOINS), 10, "frozen", 0, {})  # type: ignore[arg-type]
    x, own, _ = batch
    network.train()
    found = network.features(x, own)
    for cell, map_ in zip(cells, found, strict=True):
        plain = backbone.features(x, cell.tap.t, [cell.tap.block], own)[cell.tap.block]
        spread = plain.var((0, 2, 3), correction=0, keepdim=True).add(1e-5).sqrt()
        torch.testing.assert_close(map_, (plain - plain.mean((0, 2, 3), keepdim=True)) / spread, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", _through.MODES)
def test_difformer_is_trained_through_the_network(mode: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    more = ("--mode", mode, "--head", JOINS, "--block", "mid,up.0.0", "--t", "10,30", "--epochs", 1, "--rates", "0.01")
    code, _, err = finetune(command, tiny_run, tmp_path / "run", *more, "--batch", 32, "--shots", 10)
    assert code == 0, err
    (score,) = results.read(tmp_path / "run")
    assert score.about["steps"] == [10.0, 30.0] and score.about["block"] == "mid, up.0.0"
    assert score.about["passes"] == (3 if mode == "difffeed" else 2)
    test = datasets.load("digits").build("test")
    chances = _tuned.load(tmp_path / "run", device="cpu").of_rows(test)
    assert (chances.argmax(1) == test.labels).mean() == score.value


def test_a_run_that_is_killed_goes_on_to_the_same_end(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--mode", "difffeed", "--head", P2, "--epochs", 2, "--rates", "0.003,0.01", "--batch", 512)
    assert finetune(command, tiny_run, tmp_path / "whole", *more)[0] == 0

    class Killed(BaseException):
        pass

    write, left = files.write_text, []

    def dies(path: Path, text: str) -> None:
        if path.name == "metrics.jsonl" and len(left) in (1, 2):
            left.append(path)
            raise Killed
        if path.name == "metrics.jsonl":
            left.append(path)
        write(path, text)

    monkeypatch.setattr(files, "write_text", dies)
    for _ in range(2):
        with pytest.raises(Killed):
            finetune(command, tiny_run, tmp_path / "killed", *more)
    assert finetune(command, tiny_run, tmp_path / "killed", *more)[0] == 0
    for name in ("metrics.jsonl", "results.jsonl", "best.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


SMALL = ("--mode", "frozen", "--pool", 2, "--epochs", 2, "--rates", "0.01", "--batch", 16, "--augment", "none")


def test_few_labels_are_drawn_as_probe_draws_them(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    """Two seeds at once are the two of them alone, and `predict` has the first."""
    shots = (*SMALL, "--shots", 5)
    code, _, err = finetune(command, tiny_run, tmp_path / "both", *shots, "--seeds", 2)
    assert code == 0, err
    (score,) = results.read(tmp_path / "both")
    alone = []
    for seed in (0, 1):
        assert finetune(command, tiny_run, tmp_path / str(seed), *shots, "--seed", seed)[0] == 0
        alone += results.read(tmp_path / str(seed))
    assert score.seeds == (0, 1) and score.about["shots"] == 5
    assert score.about["per_seed"] == [one.value for one in alone] and len(set(score.about["per_seed"])) == 2
    assert score.value == pytest.approx(sum(one.value for one in alone) / 2)
    for folder, one in (("both", "0"), ("both/seed-1", "1")):
        for name in ("metrics.jsonl", "best.safetensors"):
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / one / name).read_bytes()
    (path,) = (tmp_path / "both" / "predictions").glob("*.npz")
    found, test = _trials.load(path), datasets.load("digits").build("test")
    assert found.predicted.shape == (2, len(test)) and list(found.seeds) == [0, 1]
    chances = _tuned.load(tmp_path / "both", device="cpu").of_rows(test)
    assert (chances.argmax(1) == found.predicted[0]).all() and (found.predicted[0] != found.predicted[1]).any()


def test_shots_are_as_many_of_train_and_of_val(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    best_of = _tuner.best_of

    def watched(rates: Any, made: Any, train: Any, val: Any, *more: Any) -> Any:
        seen.extend(part.rows.index.tolist() for part in (train, val))
        return best_of(rates, made, train, val, *more)

    monkeypatch.setattr(_tuner, "best_of", watched)
    assert finetune(command, tiny_run, tmp_path / "run", *SMALL, "--shots", 5)[0] == 0
    train, val = (datasets.load("digits").build(split) for split in ("train", "val"))
    assert seen[0] == train.index[_shots.draw(train.labels, 5, 0)].tolist() and len(seen[0]) == 50
    assert seen[1] == val.index[_shots.at_most(val.labels, 5, 0)].tolist() and len(seen[1]) == 50


def test_a_list_of_labels_is_all_that_is_learned_from(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    """A tenth of the labels; the run says so, and other lists are other runs."""
    whole = datasets.load("digits")
    listed = tmp_path / "tenth.txt"
    named = [i for split in ("train", "val") for i in whole.build(split).index.tolist() if i % 10 == 3]
    listed.write_text("".join(f"{i}\n" for i in named))
    more = (*SMALL, "--data", f"digits?labels={listed}")
    code, _, err = finetune(command, tiny_run, tmp_path / "run", *more)
    assert code == 0, err
    (score,) = results.read(tmp_path / "run")
    assert score.about["data"] == f"digits?labels={listed}" and score.n == len(whole.build("test"))
    listed.write_text(listed.read_text() + f"{next(i for i in whole.build('train').index if i % 10 == 4)}\n")
    code, _, err = finetune(command, tiny_run, tmp_path / "run", *more)
    assert code == 2 and "was made from is not the same now: data" in err
    listed.write_text("x\n")
    code, _, err = finetune(command, tiny_run, tmp_path / "other", *more)
    assert code == 2 and "names x, which is no image of train" in err and err.count("\n") == 1


def test_images_that_do_not_decode_are_left_out_and_told(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    rows = datasets.load("digits").build("train")
    for label in (0, 1):
        folder = tmp_path / "data" / str(label)
        folder.mkdir(parents=True)
        for k in range(16):
            image = rows.read([int((rows.labels == label).nonzero()[0][k])])[0]
            Image.fromarray(image[0].numpy()).save(folder / f"{k}.png")
    (tmp_path / "data" / "1" / "7.png").write_bytes((tmp_path / "data" / "1" / "7.png").read_bytes()[:60])
    more = (*SMALL, "--data", f"folder:{tmp_path / 'data'}")
    code, _, err = finetune(command, tiny_run, tmp_path / "run", *more)
    assert code == 2 and "7.png does not decode" in err and err.count("\n") == 1
    code, _, err = finetune(command, tiny_run, tmp_path / "skipping", *more, "--on-error", "skip")
    assert code == 0, err
    (score,) = results.read(tmp_path / "skipping")
    assert score.about["skipped"] == ["1/7.png"]
    assert "left out, since it does not decode: 1/7.png" in (tmp_path / "skipping" / "log.txt").read_text()


@pytest.mark.parametrize("mode", ["full", "difffeed"])
def test_two_processes_train_what_one_does(mode: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    """With the same batch, to rounding: gradients are of all images, and so are the statistics of batch norms."""
    more = ("--mode", mode, "--epochs", "2", "--rates", "0.003", "--batch", "90", "--shots", "18", "--augment", "crop")
    more += ("--head", P2, "--pool", "0") if mode == "difffeed" else ("--head", "linear", "--pool", "2")
    words = (*ARGUMENTS, "--model", tiny_run, "--out", tmp_path / "two", *more, "--quiet", "--json")
    with processes.Twofold(*words, count=2) as process:
        assert process.wait(SECONDS) == 0, process.err
    assert finetune(command, tiny_run, tmp_path / "one", *more)[0] == 0
    curves = [[line["loss"] for line in files.read_lines(tmp_path / name / "metrics.jsonl")] for name in ("one", "two")]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    # AdamW moves a weight whose gradient is nothing but rounding by the whole rate, so not all of them are alike.
    for name in (name for name in one if name.startswith(("norms", "head.classifier", "head.1"))):
        torch.testing.assert_close(two[name], one[name], rtol=2e-2, atol=2e-3, msg=name)
    (alone,), (together,) = (results.read(tmp_path / name) for name in ("one", "two"))
    assert together.n == alone.n and together.value == pytest.approx(alone.value, abs=0.02)


def test_more_processes_than_images_are_refused(
    tiny_run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "20")
    code, out, err = finetune(command, tiny_run, tmp_path / "run", *SMALL)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "20 processes were started" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--mode", "fast"], "'fast'"),
        (["--mode", "frozen", "--head", "ridge"], "ridge is not trained by gradients"),
        (["--mode", "frozen", "--head", "attention", "--t", "10,30"], "reads one map, not 2"),
        (["--mode", "frozen", "--checkpointing"], "is for --mode full or difffeed"),
        (["--mode", "frozen", "--head", "difformer"], "joins several maps, and there is one"),
        (["--mode", "frozen", "--head", "linear", "--pool", "0"], "linear reads pooled rows"),
        (["--mode", "frozen", "--head", "attention", "--pool", "1"], "attention reads maps"),
        (["--mode", "full", "--model", "pixels:8", "--block", "1"], "--mode full needs a diffusion model"),
        (["--mode", "frozen", "--block", "all"], "one block or several, not all"),
        (["--mode", "frozen", "--block", "7000"], "no block 7000"),
        (["--mode", "frozen", "--t", "5000"], "0 to 999"),
        (["--mode", "frozen", "--epochs", "0"], "--epochs must be at least 1"),
        (["--mode", "frozen", "--batch", "1"], "--batch must be at least 2"),
        (["--mode", "frozen", "--augment", "flip,none"], "none stands alone"),
        (["--mode", "frozen", "--recipe", "best"], "'best'"),
        (["--mode", "frozen", "--shots", "5000"], "--shots 5000: digits has only"),
        (["--mode", "frozen", "--shots", "-1"], "--shots must be at least 0"),
        (["--mode", "frozen", "--seeds", "0"], "--seeds must be at least 1"),
        (["--mode", "frozen", "--on-error", "guess"], "'guess'"),
        (["--mode", "frozen", "--data", "digits?labels=nowhere.txt"], "nowhere.txt cannot be read"),
        (["--mode", "full", "--rates", "1e5", "--recipe", "paper"], "Give smaller --rates"),
        (["--mode", "frozen", "--rates", "1e40"], "--rates must be at most"),
    ],
    ids=lambda value: " ".join(value[2:]) or value[1] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(more: list[str], says: str, tiny_run: Path, tmp_path: Path, command: Command) -> None:
    code, out, err = finetune(command, tiny_run, tmp_path / "out", *more)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err


def test_a_damaged_checkpoint_is_named(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    more = ("--mode", "full", "--rates", "1e5", "--recipe", "paper")
    assert finetune(command, tiny_run, tmp_path / "out", *more)[0] == 2
    (tmp_path / "out" / "state.pt").write_bytes(b"nothing")
    code, _, err = finetune(command, tiny_run, tmp_path / "out", *more)
    assert code == 2 and "state.pt is damaged" in err
