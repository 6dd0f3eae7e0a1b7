"""What a network is trained to predict: losses that are right, and folders that diffusers opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ConsistencyModelPipeline, DDPMPipeline
from PIL import Image
from torch import Tensor

from twofold.backbones import base
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.steps import _objectives, _schedule
from twofold.steps._architecture import Wanted, network
from twofold.steps._objectives import Objective
from twofold.steps._trainer import Recipe, Trainer
from twofold.steps.pretrain import Config

Command = Callable[..., tuple[int, str, str]]
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--images", 96, "--batch", 32, "--warmup", 0, "--quiet")
NAMES = ("epsilon", "v", "edm")


def setup(name: str, learned: bool = False) -> tuple[Objective, DiffusionNetwork, Tensor, Tensor, Tensor]:
    """An objective, its backbone, images of standard deviation 1/2, levels and noise."""
    objective = _objectives.make(name, "cosine", 100, learned)
    backbone = objective.backbone(
        network(Wanted(8, 1, widths=(8, 8), layers=1, outputs=objective.outputs)), base.place("cpu", "fp32")
    )
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, 8, 8, generator=chance) / 2
    levels = torch.randint(0, 100, (512,), generator=chance) if objective.steps else torch.randn(512, generator=chance)
    return objective, backbone, x, levels, torch.randn(x.shape, generator=chance)


def truth(name: str, backbone: DiffusionNetwork, x: Tensor, levels: Tensor, eps: Tensor) -> Tensor:
    """What the network should say."""
    if name == "edm":
        sigma = (-1.2 + 1.2 * levels).exp().view(-1, 1, 1, 1)
        total = sigma**2 + 0.25
        return (x - 0.25 / total * (x + sigma * eps)) * 2 * total.sqrt() / sigma
    signal, spread = backbone.coefficients(levels)
    return eps if name == "epsilon" else signal * eps - spread * x


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_zero_for_the_truth_and_the_square_of_what_is_added_to_it(name: str) -> None:
    objective, backbone, x, levels, eps = setup(name)
    told = truth(name, backbone, x, levels, eps)
    for added in (0.0, 0.5):
        loss = objective.loss(lambda *_, a=added: told + a, backbone, x, levels, eps)
        assert float(loss) == pytest.approx(added**2, abs=1e-3)


def test_edm_s_network_sees_and_says_numbers_of_unit_size_at_every_sigma() -> None:
    objective, backbone, x, _, eps = setup("edm")
    for level in (-3.0, 0.0, 3.0):
        seen: list[tuple[Tensor, Tensor]] = []

        def ask(sample: Tensor, time: Tensor, seen: list[tuple[Tensor, Tensor]] = seen) -> Tensor:
            seen.append((sample, time))
            return torch.zeros_like(sample)

        loss = objective.loss(ask, backbone, x, torch.full((512,), level), eps)
        assert float(loss) == pytest.approx(1, abs=0.05)
        assert float(seen[0][0].std()) == pytest.approx(1, abs=0.05)
        assert seen[0][1].tolist() == pytest.approx([(-1.2 + 1.2 * level) / 4] * 512, rel=1e-4)


def test_the_bound_teaches_the_variance_and_nothing_else() -> None:
    objective, backbone, x, levels, eps = setup("epsilon", learned=True)
    given = torch.cat([eps + 0.1, torch.zeros_like(eps)], 1).requires_grad_()
    objective.loss(lambda *_: given, backbone, x, levels, eps).backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad[:, :1], torch.full_like(eps, 2 * 0.1 / eps.numel()))
    assert (given.grad[:, 1:] != 0).any(dim=(1, 2, 3)).all()


def test_the_bound_is_what_two_gaussians_are_apart() -> None:
    """Against torch's divergence, with the posterior of Ho et al. 2020, eq. 7, written out."""
    objective, backbone, x, _, eps = setup("epsilon", learned=True)
    scheduler, steps, place = objective.scheduler, torch.full((512,), 40), 0.3
    kept, before, beta = scheduler.alphas_cumprod[40], scheduler.alphas_cumprod[39], scheduler.betas[40]
    x_t = kept.sqrt() * x + (1 - kept).sqrt() * eps
    clean = (x_t - (1 - kept).sqrt() * (eps + 0.2)) / kept.sqrt()
    least = beta * (1 - before) / (1 - kept)

    def gaussian(image: Tensor, variance: Tensor) -> torch.distributions.Normal:
        mean = before.sqrt() * beta * image + (1 - beta).sqrt() * (1 - before) * x_t
        return torch.distributions.Normal(mean / (1 - kept), variance.sqrt())

    log = (1 + place) / 2 * beta.log() + (1 - place) / 2 * least.log()
    apart = torch.distributions.kl_divergence(gaussian(x, least), gaussian(clean, log.exp())).mean()
    expected = 0.2**2 + 0.001 * 100 * apart / torch.log(torch.tensor(2.0))
    given = torch.cat([eps + 0.2, torch.full_like(eps, place)], 1)
    torch.testing.assert_close(objective.loss(lambda *_: given, backbone, x, steps, eps), expected, rtol=1e-4, atol=0)


def test_the_chances_of_all_grey_levels_add_up_to_one() -> None:
    levels = torch.arange(256) / 127.5 - 1
    for mean, variance in ((0.0, 0.01), (0.9, 1.0), (-1.0, 1e-3)):
        chances = _objectives.log_chance(levels, torch.tensor(mean), torch.tensor(variance).log()).exp()
        assert float(chances.sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("arguments", [("epsilon",), ("v", "--schedule", "cosine", "--learned-variance"), ("edm",)])
def test_a_run_with_labels_is_a_pipeline_of_diffusers(
    arguments: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    code, _, err = command(*TINY, "--out", out, "--labels", "--probe-every", 48, "--objective", *arguments)
    assert code == 0, err
    kind = ConsistencyModelPipeline if arguments[0] == "edm" else DDPMPipeline
    pipeline = kind.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.unet.config
    assert config.num_class_embeds == 10 and config.out_channels == 1 + ("--learned-variance" in arguments)
    if arguments[0] == "edm":
        assert pipeline(batch_size=2, class_labels=[1, 2], num_inference_steps=3, output_type="np").images.shape[0] == 2
    code, _, err = command(
        "sample", "--model", out, "--out", tmp_path / "made", "--num", 2, "--label", "3,7", "--guidance", 2,
        "--sampler", "dpm++", "--steps", 3, "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert {path.parent.name for path in (tmp_path / "made" / "images").glob("*/*.png")} == {"3", "7"}


@pytest.mark.parametrize("objective", NAMES)
def test_classes_are_learned_and_no_class_stays_zero(objective: str) -> None:
    config = Config("digits", Path(), images=128, batch=64, widths=(8, 8), objective=objective, labels=True, warmup=0)
    trainer = Trainer(Recipe.of(config), datasets.load("digits"), 8)
    table = trainer.backbone.network.class_embedding.weight  # type: ignore[union-attr]
    before = table.detach().clone()
    trainer.update()
    assert (table[:10] != before[:10]).any(1).all() and (table[10] == 0).all()  # type: ignore[index]
    trainer.update()
    assert trainer.pipeline().unet.class_embedding.weight.shape[0] == 10


def test_classes_have_the_data_s_names(tmp_path: Path, command: Command) -> None:
    assert command(*TINY, "--out", tmp_path, "--labels", "--probe-every", 0)[0] == 0
    backbone = base.load(str(tmp_path), device="cpu")
    assert isinstance(backbone, DiffusionBackbone) and backbone.class_names == datasets.load("digits").classes


def test_which_labels_are_left_out_belongs_to_the_image() -> None:
    whole, part = (_schedule.draw(3, numbers, 10, (1, 2, 2), 9) for numbers in (range(2000), range(8, 12)))
    assert (whole.chances[8:12] == part.chances).all()
    assert float((whole.chances < 0.1).mean()) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("wrong", [("--schedule", "cosine"), ("--learned-variance",), ("--steps", "10")])
def test_edm_has_no_ladder(wrong: tuple[str, ...], tmp_path: Path, command: Command) -> None:
    code, _, err = command(*TINY, "--out", tmp_path / "out", "--objective", "edm", *wrong)
    assert code == 2 and err.count("\n") == 1 and wrong[0] in err, err
    assert not (tmp_path / "out").exists()


def test_labels_that_are_not_told_cannot_be_left_out(tmp_path: Path, command: Command) -> None:
    code, _, err = command(*TINY, "--out", tmp_path / "out", "--label-dropout", 0.3)
    assert code == 2 and err.count("\n") == 1 and "Give --labels" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", ["one", "."])
def test_labels_of_one_class_or_none_are_nothing_to_tell(kept: str, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "data" / kept
    folder.mkdir(parents=True)
    for k in range(8):
        Image.new("L", (8, 8), 9 * k).save(folder / f"{k}.png")
    given = ("--data", f"folder:{tmp_path / 'data'}", "--labels", "--out", tmp_path / "out")
    code, _, err = command(*TINY, *given)
    assert code == 2 and err.count("\n") == 1 and "Leave --labels out" in err, err
    assert not (tmp_path / "out").exists()


def test_a_consistency_model_is_not_taken_for_edm(tmp_path: Path, command: Command) -> None:
    assert command(*TINY, "--out", tmp_path, "--objective", "edm", "--probe-every", 0)[0] == 0
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("EDMEulerScheduler", "CMStochasticIterativeScheduler"))
    code, _, err = command("blocks", tmp_path)
    assert code == 2 and "CMStochasticIterativeScheduler" in err, err
