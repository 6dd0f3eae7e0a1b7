"""What every rival must do: train the same network afresh, from the seed alone, and leave a model with its budget."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from twofold import cli, files, registry
from twofold.backbones import base as backbones
from twofold.errors import Diverged
from twofold.rivals import _net, _views
from twofold.rivals._alike import nt_xent
from twofold.rivals._blanked import Blanked
from twofold.rivals._trainer import Trainer

NAMES = registry.names("rivals")
Command = Callable[..., tuple[int, str, str]]


def trained(name: str, like: Path, out: Path, **more: Any) -> dict[str, torch.Tensor]:
    """The weights that a short training leaves."""
    module = registry.find("rivals", name)
    few = {"samples": 3} if name == "gan" else {}
    settings = {**few, "images": 200, "batch": 32, "warmup": 64, "log_every": 64, "device": "cpu", **more}
    module.run(module.Config(data="digits", like=str(like), out=out, **settings))
    return weights(out)


@pytest.fixture(scope="module")
def short(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a rival's short training, made once; only read."""

    @cache
    def made(name: str) -> Path:
        out = tmp_path_factory.mktemp(name) / "rival"
        trained(name, tiny_run, out)
        return out

    return made


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def equal(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[n], there[n]) for n in here)


@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_a_model_that_extract_reads(
    name: str, short: Callable[[str], Path], tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    read = command("extract", "--model", short(name), "--data", "digits", "--split", "val", "--t", 0,
                   "--blocks", "all", "--out", tmp_path / "store", "--quiet")  # fmt: skip
    assert read[0] == 0, read[2]
    rival, like = (backbones.load(f"run:{f}", device="cpu") for f in (short(name), tiny_run))
    assert [dataclasses.astuple(b) for b in rival.blocks] == [dataclasses.astuple(b) for b in like.blocks]


@pytest.mark.parametrize("name", NAMES)
def test_it_does_not_pretend_to_generate(
    name: str, short: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    for verb, *more in (("sample", "--num", 2), ("edit", "vary", "--image", tmp_path / "image.png", "--sigma", 1)):
        given = [verb, *more, "--model", short(name), "--out", tmp_path / "out"]
        code, out, err = command(*given)
        assert (code, out, err.count("\n")) == (2, "", 1) and f"rival {name} did not teach it to remove noise" in err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_weights_belong_to_the_seed_and_are_trained(
    name: str, short: Callable[[str], Path], tiny_run: Path, tmp_path: Path
) -> None:
    first, again = weights(short(name)), trained(name, tiny_run, tmp_path / "again")
    other = trained(name, tiny_run, tmp_path / "other", seed=1)
    fresh = trained(name, tiny_run, tmp_path / "fresh", lr=0.0)
    assert equal(first, again) and not equal(first, other)
    moved = {n for n in first if not torch.equal(first[n], fresh[n])}
    assert any(n.startswith("down_blocks") for n in moved) and any(n.startswith("mid_block") for n in moved)
    seen = load_file(tiny_run / "unet" / "diffusion_pytorch_model.safetensors")
    assert not any(torch.equal(first[n], seen[n]) for n in first if n.endswith("conv1.weight")), "not afresh"


@pytest.mark.parametrize("name", NAMES)
def test_what_was_interrupted_ends_in_the_same_weights(
    name: str, short: Callable[[str], Path], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer.update

    def interrupted(self: Trainer) -> None:
        if self.seen >= 128:
            raise KeyboardInterrupt
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(name, tiny_run, tmp_path / "stopped", save_every=96)
    assert int(torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["seen"]) == 96
    resumed = trained(name, tiny_run, tmp_path / "stopped", save_every=96)
    assert equal(resumed, weights(short(name)))
    notes = [
        [{n: v for n, v in note.items() if n != "seconds"} for note in files.read_lines(run / "metrics.jsonl")]
        for run in (tmp_path / "stopped", short(name))
    ]
    assert notes[0] == notes[1]


@pytest.mark.parametrize("name", NAMES)
def test_its_budget_is_told_and_by_default_that_of_the_run(name: str, tiny_run: Path, tmp_path: Path) -> None:
    trained(name, tiny_run, tmp_path / "rival", images=None, probe_every=512)
    facts = json.loads((tmp_path / "rival" / "finished.json").read_text())
    assert facts["images"] == json.loads((tiny_run / "finished.json").read_text())["images"] == 512
    network = backbones.load(f"run:{tiny_run}", device="cpu")
    assert 0 < facts["parameters"] <= network.parameters
    assert (name == "masked") == (facts["parameters"] == network.parameters)
    # One image costs a pass forward and two backward; what is not a convolution or a product is not counted.
    assert 0.5 * facts["like_operations"] < facts["operations_per_image"] < 3 * facts["like_operations"]
    assert facts["seconds"] >= 0 and 0 < facts["probe"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_diverges_keeps_its_last_checkpoint(
    name: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer.update

    def spoiled(self: Trainer) -> None:
        update(self)
        if self.seen > 96:
            with torch.no_grad():
                self._weights[0].fill_(torch.inf)

    monkeypatch.setattr(Trainer, "update", spoiled)
    with pytest.raises(Diverged, match=r"checkpoint before it is kept\. .*--lr"):
        trained(name, tiny_run, tmp_path / "rival", save_every=96)
    assert int(torch.load(tmp_path / "rival" / "checkpoint.pt", weights_only=True)["seen"]) == 96
    assert not (tmp_path / "rival" / "finished.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_its_help_explains_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run(["rival", name, "--help"])
    told = capsys.readouterr().out
    for field in dataclasses.fields(registry.find("rivals", name).Config):
        assert "--" + field.name.replace("_", "-") in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gna"], "Did you mean 'gan'"),
        (["gan", "--data", "digits"], "rival gan needs --like and --out"),
        (["gan", "--data", "digits", "--out", "OUT", "--like", "pixels:8"], "--images"),
        (["gan", "--data", "digits", "--out", "OUT", "--like", "pixels:8", "--images", "9"], "is no U-Net on pixels"),
        (["masked", "--data", "digits", "--out", "OUT", "--like", "RUN", "--patch", "3"], "--patch 3 does not divide"),
        (["masked", "--data", "digits", "--out", "OUT", "--like", "nowhere/at/all"], "--images"),
        (["masked", "--data", "digits", "--out", "OUT", "--like", "RUN", "--batch", "1"], "at least 2"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], says: str, tiny_run: Path, tmp_path: Path, command: Command
) -> None:
    places = {"RUN": str(tiny_run), "OUT": str(tmp_path / "out")}
    code, out, err = command("rival", *[places.get(a, a) for a in arguments])
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


def test_the_verb_lists_its_members(command: Command) -> None:
    assert "  rival " in command("--help")[1]
    code, out, _ = command("rival", "--help")
    assert code == 0 and all(f"  {name} " in out for name in NAMES)
    assert command("rival")[0] == 2


def test_a_gan_leaves_images_as_sample_does(tiny_run: Path, tmp_path: Path) -> None:
    trained("gan", tiny_run, tmp_path / "gan", samples=7)
    found = sorted((tmp_path / "gan" / "samples" / "images").iterdir())
    assert [f.name for f in found] == [f"{i:06d}.png" for i in range(7)]
    assert np.asarray(Image.open(found[0])).shape == (8, 8)
    assert (tmp_path / "gan" / "samples" / "grid.png").exists()


def test_nt_xent_is_the_formula() -> None:
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = z / z.norm(dim=1, keepdim=True)
    terms = []
    for i in range(6):
        likeness = {j: float(unit[i] @ unit[j]) / 0.3 for j in range(6) if j != i}
        terms.append(np.log(sum(np.exp(v) for v in likeness.values())) - likeness[(i + 3) % 6])
    assert float(nt_xent(z, 0.3)) == pytest.approx(np.mean(terms), rel=1e-9)


def test_a_view_belongs_to_its_image() -> None:
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = _views.view(x, 0, range(4, 8), 0, 0.4, True)
    part = _views.view(x[1:3], 0, range(5, 7), 0, 0.4, True)
    torch.testing.assert_close(whole[1:3], part)
    assert not torch.allclose(whole, _views.view(x, 0, range(4, 8), 1, 0.4, True))
    assert whole.min() >= -1 and whole.max() <= 1


def test_blanks_belong_to_their_image_and_hide_it(tiny_run: Path) -> None:
    rival = Blanked(_net.like(str(tiny_run), device="cpu"), seed=0, patch=None, share=0.6)
    hidden = rival._hidden(range(4, 8))
    assert torch.equal(hidden[1:3], rival._hidden(range(5, 7))) and not torch.equal(hidden[0], hidden[1])
    assert hidden.sum((1, 2, 3)).tolist() == [4 * round(0.6 * 16)] * 4
    seen: list[torch.Tensor] = []
    rival._net.forward = lambda x: seen.append(x) or torch.zeros_like(x)  # type: ignore[assignment]
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loss = rival.loss("network", x, range(4, 8))
    assert torch.equal(seen[0] == x, ~hidden) and not seen[0][hidden].any()
    assert float(loss) == pytest.approx(float(x[hidden].square().mean()))


@pytest.mark.parametrize("name", NAMES)
def test_another_image_number_is_another_loss(name: str, tiny_run: Path, tmp_path: Path) -> None:
    module = registry.find("rivals", name)
    config = module.Config(data="digits", like=str(tiny_run), out=tmp_path)
    rival = module._make(config, _net.like(str(tiny_run), device="cpu"))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for player in rival.players:
        here, again, there = (float(rival.loss(player, x, range(k, k + 4)).detach()) for k in (0, 0, 9))
        assert here == again != there
