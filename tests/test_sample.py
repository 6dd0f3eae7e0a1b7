"""Samplers on every family that can generate, classes and guidance, growing and shared runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import processes
import tiny_models
from twofold import noise
from twofold.backbones import base
from twofold.backbones._processes import Exploding, Flow, Ladder, Process, Sigma
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.errors import BadSetting, UnknownName
from twofold.steps import _drawn, _guidance, _samplers
from twofold.steps.sample import Config, Drawing

Command = Callable[..., tuple[int, str, str]]
SAMPLERS = tuple(_samplers.SAMPLERS)

FAMILIES: dict[str, Callable[[Path, Path], str]] = {
    "own": lambda run, _: f"run:{run}",
    "adm": lambda _, made: f"adm:{tiny_models.adm(made)}",
    "score SDE": lambda _, made: f"diffusers:{tiny_models.pipeline('ScoreSdeVePipeline', made / 've')}",
    "DiT": lambda _, made: f"diffusers:{tiny_models.pipeline('DiTPipeline', made / 'dit')}",
    "SD": lambda _, made: f"diffusers:{tiny_models.pipeline('StableDiffusionPipeline', made / 'sd')}",
    "Flux": lambda _, made: f"diffusers:{tiny_models.pipeline('FluxPipeline', made / 'flux')}",
    "SD3": lambda _, made: f"diffusers:{tiny_models.pipeline('StableDiffusion3Pipeline', made / 'sd3')}",
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return FAMILIES[request.param](tiny_run, tmp_path_factory.getbasetemp() / "models")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A U-Net that can be told ten classes."""
    return f"diffusers:{tiny_models.pipeline('DDPMPipeline', tmp_path_factory.getbasetemp() / 'models' / 'classes')}"


def drawing(model: str, sampler: str, **settings: Any) -> Drawing:
    chosen = {"steps": 3, "num": 3, "precision": "fp32"} | settings
    return Drawing.of(Config(model, Path("unused"), sampler=sampler, **chosen), "cpu")


def images(folder: Path) -> dict[str, bytes]:
    """Every image's pixels by its place below the run."""
    found = {str(f.relative_to(folder)): np.asarray(Image.open(f)).tobytes() for f in folder.rglob("images/**/*.png")}
    assert found
    return found


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_seed_and_number_alone(model: str, sampler: str) -> None:
    """Whatever family, sampler and batch; another seed is another image."""
    whole = drawing(model, sampler).images(range(3))
    assert whole.dtype == np.uint8 and len(whole) == 3
    assert apart(drawing(model, sampler).images(range(2, 3))[0], whole[2]) <= 1
    assert apart(whole[0], whole[1]) > 1
    assert apart(drawing(model, sampler, seed=1).images(range(1))[0], whole[0]) > 1


PROCESSES: dict[str, Process] = {
    "ladder": Ladder(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)),
    "exploding": Exploding(0.01, 50.0),
    "sigma": Sigma(0.002, 80.0),
    "flow": Flow(3.0),
}


class Gaussian:
    """Data whose every number is normal with this mean and spread, so that the best estimate is a formula."""

    mean, std = 0.3, 0.5
    preprocessing: ClassVar = {"range": "latents"}

    def __init__(self, process: Process) -> None:
        self.process, self.schedule = process, dict[str, Any]()

    def estimate(self, x: torch.Tensor, t: float) -> tuple[torch.Tensor, None]:
        signal, spread = (float(c) for c in self.process.coefficients(torch.tensor(t, dtype=torch.float64)))
        gain = signal * self.std**2 / (signal**2 * self.std**2 + spread**2)
        return self.mean + gain * (x - signal * self.mean), None

    def draw(self, sampler: str, steps: int) -> torch.Tensor:
        x = torch.from_numpy(noise.normal(0, range(4), (1, 64, 64), purpose=noise.SAMPLING))
        chances = partial(noise.torch_generators, 0, range(4), purpose=noise.SAMPLING_STEPS)
        return _samplers.walk(self, sampler, steps, x, chances, self.estimate)  # type: ignore[arg-type]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_have_the_data_s_own_distribution(process: str, sampler: str) -> None:
    """With a perfect network: 16,384 numbers, so the mean is known to 0.004 and the spread to 0.003."""
    drawn = Gaussian(PROCESSES[process]).draw(sampler, 200)
    assert float(drawn.mean()) == pytest.approx(Gaussian.mean, abs=0.02)
    # The variance that DDPM draws with is right for data of one image; in fewer steps than all it is too small.
    assert float(drawn.std()) == pytest.approx(Gaussian.std, rel=0.05 if sampler == "ddpm" else 0.03)


@pytest.mark.parametrize("process", PROCESSES)
def test_second_order_samplers_are_nearer_to_the_end_in_as_many_steps(process: str) -> None:
    data = Gaussian(PROCESSES[process])
    # Karras's sigmas begin elsewhere, and the end depends on the beginning.
    same_steps = {"ddim": "heun", "heun": "heun", "dpm++": "edm", "edm": "edm"}
    exact = {sampler: data.draw(sampler, 400) for sampler in ("heun", "edm")}
    off = {name: float((data.draw(name, 20) - exact[end]).abs().mean()) for name, end in same_steps.items()}
    assert max(off["heun"], off["dpm++"], off["edm"]) < off["ddim"] / 2, off


def test_ddim_is_the_pipeline_s_own(tiny_run: Path) -> None:
    """diffusers' DDIMPipeline from the same noise, with clipped estimates as here."""
    from diffusers import DDIMPipeline, DDIMScheduler

    pipeline = DDIMPipeline.from_pretrained(tiny_run)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    start = torch.from_numpy(noise.normal(0, range(4), (1, 8, 8), purpose=noise.SAMPLING))
    pipeline.set_progress_bar_config(disable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: start)
        theirs = pipeline(4, num_inference_steps=10, use_clipped_model_output=True, output_type="np").images
    ours = drawing(f"run:{tiny_run}", "ddim", steps=10).images(range(4))
    assert apart(ours, (theirs[..., 0] * 255).round().astype(np.uint8)) <= 1


def test_ddim_on_a_flow_is_euler_s_method(tmp_path_factory: pytest.TempPathFactory) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    made = tmp_path_factory.getbasetemp() / "models"
    backbone = base.load(FAMILIES["SD3"](made, made), device="cpu", precision="fp32")
    assert isinstance(backbone, DiffusionBackbone) and isinstance(backbone.process, Flow)
    assert backbone.process.shift == 3
    start = torch.from_numpy(noise.normal(0, range(2), backbone.sample_shape, purpose=noise.SAMPLING))
    theirs, scheduler = start, FlowMatchEulerDiscreteScheduler(shift=3.0)
    # Theirs are given unshifted; its own last step is not 1 / steps.
    scheduler.set_timesteps(sigmas=[1 - k / 5 for k in range(5)])
    for t in scheduler.timesteps:
        own = min(float(t) / 1000, Flow.most)
        theirs = scheduler.step((theirs - backbone.denoise(theirs, own)) / own, t, theirs).prev_sample
    ours = _samplers.walk(backbone, "ddim", 5, start, list, _guidance.estimate(backbone, None, 1.0))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["FluxPipeline", "FluxPipeline of schnell"])
def test_flux_goes_the_way_of_its_pipeline(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The packs of latents, places, empty prompt, guidance and steps of diffusers' own pipeline."""
    from diffusers import FluxPipeline

    folder = tiny_models.pipeline(kind, tmp_path_factory.getbasetemp() / "models" / kind.replace(" ", "-"))
    backbone = base.load(f"diffusers:{folder}", device="cpu", precision="fp32")
    assert isinstance(backbone, DiffusionBackbone)
    start = torch.from_numpy(noise.normal(0, range(2), backbone.sample_shape, purpose=noise.SAMPLING))
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    tokens = 256 if "schnell" in kind else 512
    theirs = pipeline(
        [""] * 2, height=16, width=16, num_inference_steps=5, latents=start.flatten(2).transpose(1, 2),
        guidance_scale=3.5, max_sequence_length=tokens, output_type="latent",
    ).images  # fmt: skip
    ours = _samplers.walk(backbone, "ddim", 5, start, list, _guidance.estimate(backbone, None, 1.0))
    assert float(theirs.std()) > 0.1
    torch.testing.assert_close(ours, theirs.transpose(1, 2).reshape(ours.shape), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("said", "spread"), [(-1.0, "small"), (1.0, "large"), (None, "small")])
def test_ddpm_draws_with_the_variance_that_was_learned(said: float | None, spread: str) -> None:
    """The only step between two rungs, from the same state: the spread is the posterior's, or the step's beta."""
    process = PROCESSES["ladder"]

    def estimate(x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        drawn.append(x)
        return torch.zeros_like(x), None if said is None else torch.full_like(x, said)

    drawn: list[torch.Tensor] = []
    data, x = Gaussian(process), torch.zeros(1, 1, 64, 64)
    _samplers.walk(data, "ddpm", 2, x, partial(noise.torch_generators, 0, [0], purpose=0), estimate)  # type: ignore[arg-type]
    low, high = (float(process.coefficients(torch.tensor([t]))[0][0]) ** 2 for t in (499.0, 999.0))
    beta = 1 - high / low
    wanted = {"large": beta, "small": beta * (1 - low) / (1 - high)}[spread]
    assert float(drawn[1].std()) == pytest.approx(wanted**0.5, rel=0.03)


def test_networks_that_learned_a_variance_say_it(model: str) -> None:
    backbone = drawing(model, "ddim").backbone
    x = torch.zeros(2, *backbone.sample_shape)
    clean, variance = backbone.estimate(x, backbone.step(1.0))
    learned = "adm" in model or "dit" in model
    assert (variance is not None) == learned and (variance is None or variance.shape == clean.shape)


def test_guidance_pulls_from_no_class_through_the_class(classes: str) -> None:
    backbone = drawing(classes, "ddim").backbone
    x, labels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 9])
    told = {w: _guidance.estimate(backbone, labels, w)(x, 500.0)[0] for w in (0.0, 1.0, 3.0)}
    torch.testing.assert_close(told[0.0], backbone.denoise(x, 500.0))
    torch.testing.assert_close(told[1.0], backbone.denoise(x, 500.0, labels))
    torch.testing.assert_close(told[3.0], told[0.0] + 3 * (told[1.0] - told[0.0]))
    assert not torch.allclose(told[0.0], told[1.0])


def test_images_of_classes_are_a_data_set(classes: str, tmp_path: Path, command: Command) -> None:
    arguments = ["sample", "--model", classes, "--out", tmp_path / "run", "--steps", 2, "--quiet"]
    code, _, err = command(*arguments, "--num", 30, "--label", "7,all")
    assert code == 2 and "stands alone" in err
    assert command(*arguments, "--num", 30, "--label", "all", "--guidance", 2)[0] == 0
    data = datasets.load(f"folder:{tmp_path / 'run' / 'images'}")
    assert data.classes == tuple("0123456789")
    assert sum(len(data.build(split)) for split in datasets.SPLITS) == 30
    assert (tmp_path / "run" / "images" / "3" / "000013.png").exists()
    assert [int(f.stem) for f in _drawn.written(tmp_path / "run", 12)] == list(range(12))


def test_a_converted_network_keeps_the_names_of_its_classes(tmp_path: Path, command: Command) -> None:
    few = ("--images", 32, "--batch", 32, "--widths", "8,8", "--probe-every", 0, "--quiet")
    assert command("pretrain", "--data", "digits", "--labels", "--out", tmp_path / "run", *few)[0] == 0
    assert command("convert", tmp_path / "run", tmp_path / "converted", "--quiet")[0] == 0
    backbone = base.load(f"diffusers:{tmp_path / 'converted'}", device="cpu")
    assert isinstance(backbone, DiffusionBackbone) and backbone.class_names == tuple("0123456789")


def test_a_larger_number_adds_to_the_run(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ["sample", "--model", tiny_run, "--sampler", "ddpm", "--steps", 3, "--batch", 4, "--quiet", "--json"]
    assert command(*arguments, "--out", tmp_path / "once", "--num", 10)[0] == 0
    for num, batch in ((3, 4), (10, 4), (5, 9)):
        code, out, err = command(*arguments, "--out", tmp_path / "grown", "--num", num, "--batch", batch)
        assert code == 0, err
    assert json.loads(out)["num"] == 10  # a run never shrinks
    _drawn.path(tmp_path / "grown", 8).unlink()
    assert command(*arguments, "--out", tmp_path / "grown", "--num", 5)[0] == 0
    once, grown = images(tmp_path / "once"), images(tmp_path / "grown")
    assert once.keys() == grown.keys() and len(once) == 10
    for name, pixels in once.items():
        assert apart(np.frombuffer(pixels, np.uint8), np.frombuffer(grown[name], np.uint8)) <= 1
    code, _, err = command(*arguments, "--out", tmp_path / "grown", "--num", 20, "--seed", 1)
    assert code == 2 and "other settings: seed" in err


def test_what_a_killed_run_left_is_made_again_bit_for_bit(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ["sample", "--model", tiny_run, "--sampler", "ddpm", "--steps", 3, "--batch", 4, "--num", 10, "--quiet"]
    assert command(*arguments, "--out", tmp_path / "run")[0] == 0
    whole = images(tmp_path / "run")
    for index in (1, 2, 9):
        _drawn.path(tmp_path / "run", index).unlink()
    (tmp_path / "run" / "finished.json").unlink()
    left = tmp_path / "run" / "images" / ".unfinished-x.png"
    left.write_bytes(b"half")
    assert command(*arguments, "--out", tmp_path / "run")[0] == 0
    assert images(tmp_path / "run") == whole and not left.exists()


@pytest.mark.slow
def test_processes_share_the_images(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    arguments = ["sample", "--model", tiny_run, "--sampler", "ddpm", "--steps", 50, "--batch", 2, "--num", 20]
    assert command(*arguments, "--out", tmp_path / "alone", "--quiet")[0] == 0
    assert command(*arguments, "--out", tmp_path / "workers", "--workers", 2, "--quiet")[0] == 0
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    with ExitStack() as stack:
        launched = [
            stack.enter_context(
                processes.Twofold(
                    *arguments, "--out", tmp_path / "launched",
                    environment={**address, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
                )
            )
            for rank in ("1", "0")
        ]  # fmt: skip
        assert [process.wait(120) for process in launched] == [0, 0], [process.err for process in launched]
    assert images(tmp_path / "alone") == images(tmp_path / "workers") == images(tmp_path / "launched")


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--sampler", "dpm"], "Did you mean"),
        (["--steps", 1001], "at most 1000"),
        (["--label", "3"], "knows no classes"),
        (["--guidance", 2], "Give --label"),
        (["--guidance", "-1"], "at least 0"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tiny_run: Path, tmp_path: Path, command: Command, given: list[object], told: str
) -> None:
    code, _, err = command("sample", "--model", tiny_run, "--out", tmp_path / "run", *given)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("label", "told"), [("10", "0 to 9"), ("-1", "0 to 9"), ("cat", "0 to 9")])
def test_an_unknown_class_is_one_line(classes: str, tmp_path: Path, command: Command, label: str, told: str) -> None:
    code, _, err = command("sample", "--model", classes, "--out", tmp_path / "run", "--label", label)
    assert code == 2 and told in err and err.count("\n") == 1


def test_classes_can_be_called_by_name(tmp_path: Path, command: Command) -> None:
    """ImageNet's names are several words with commas between; any of them will do."""
    folder = tiny_models.pipeline("DiTPipeline", tmp_path / "dit")
    index = folder / "model_index.json"
    names = {str(k): f"word {k}, synonym/{k}" for k in range(10)} | {"8": "Crane/bird", "9": "crane/bird, machine"}
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": names}))
    backbone = base.load(f"diffusers:{folder}", device="cpu", precision="fp32")
    assert isinstance(backbone, DiffusionBackbone)
    assert _guidance.classes(backbone, ("word 3", "synonym/4", "5")) == (3, 4, 5)
    assert _guidance.folders(backbone)[7:] == ["word 7", "Crane_bird 8", "crane_bird 9"]
    code, _, err = command("sample", "--model", f"diffusers:{folder}", "--out", tmp_path / "run", "--label", "wrod 3")
    assert code == 2 and "Did you mean 'word 3'" in err


def called(*names: str) -> Any:
    return SimpleNamespace(name="it", classes=len(names), class_names=names)


def test_a_name_is_of_one_class_alone() -> None:
    """As in ImageNet: a whole name is no synonym of another class, and what two classes are called is refused."""
    birds = called("missile", "projectile, missile", "crane", "crane", "tower, crane")
    assert _guidance.classes(birds, ("missile", "projectile", "tower", "3")) == (0, 1, 4, 3)
    with pytest.raises(BadSetting, match="2, 3"):
        _guidance.classes(birds, ("crane",))


def test_where_names_are_numbers_no_other_number_is_a_class() -> None:
    assert _guidance.classes(called("1", "2", "3"), ("3", "1")) == (2, 0)
    for wrong in ("0", "02", "4"):
        with pytest.raises(UnknownName, match="1, 2, 3"):
            _guidance.classes(called("1", "2", "3"), (wrong,))


def test_an_encoder_cannot_generate(tmp_path: Path, command: Command) -> None:
    code, _, err = command("sample", "--model", "pixels:8", "--out", tmp_path / "run")
    assert code == 2 and "not a diffusion model" in err
