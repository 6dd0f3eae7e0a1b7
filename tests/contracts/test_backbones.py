"""What every backbone promises; a new backbone is tested the day its file lands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

import tiny_models
from twofold import noise, pooling, registry
from twofold.backbones import _processes, base
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones._processes import Ladder
from twofold.backbones.base import Backbone, BlockName, DiffusionBackbone
from twofold.errors import BadSetting, UnknownName

Place = Callable[[Path, Path], list[str]]


def squeezenet(folder: Path) -> Path:
    """Weights as a contrastive method saves them: behind a prefix, with a head of its own and no classifier."""
    network = get_model("squeezenet1_1", weights=None)
    del network.classifier
    return tiny_models.weights(folder, network, "module.encoder_q.", **{"queue": torch.zeros(2)})


# MODEL strings of each member of the room, from a finished run of `twofold pretrain` and a folder to make things in.
EXAMPLES: dict[str, Place] = {
    "unet": lambda run, _: [f"run:{run}", f"diffusers:{run}", f"run:{run}?untrained"],
    "edm": lambda _, made: [
        f"diffusers:{tiny_models.pipeline('ConsistencyModelPipeline', made / 'edm')}{control}"
        for control in ("", "?untrained")
    ],
    "pixels": lambda _, __: ["pixels:8"],
    "adm": lambda _, made: [
        f"adm:{tiny_models.adm(made)}",
        f"adm:{tiny_models.adm(made, 'classes', class_cond=True, resblock_updown=False)}",
        f"adm:{tiny_models.adm(made)}?untrained",
    ],
    "scoresde": lambda _, made: [f"diffusers:{tiny_models.pipeline('ScoreSdeVePipeline', made / 've')}"],
    "dit": lambda _, made: [
        f"diffusers:{tiny_models.pipeline('DiTPipeline', made / 'dit')}{control}" for control in ("", "?untrained")
    ],
    "latent": lambda _, made: [
        f"diffusers:{tiny_models.pipeline('StableDiffusionPipeline', made / 'sd')}",
        f"diffusers:{tiny_models.pipeline('StableDiffusionXLPipeline', made / 'xl')}",
        f"diffusers:{made / 'sd'}?untrained",
    ],
    "flow": lambda _, made: [f"diffusers:{tiny_models.pipeline('StableDiffusion3Pipeline', made / 'sd3')}"],
    "flux": lambda _, made: [f"diffusers:{tiny_models.pipeline('FluxPipeline', made / 'flux')}"],
    "timm": lambda _, made: ["timm:test_vit?untrained", "timm:test_resnet?untrained"],
    "torchvision": lambda _, made: [f"torchvision:squeezenet1_1@{squeezenet(made)}", "torchvision:resnet18?untrained"],
    "inception": lambda _, made: [f"inception:{tiny_models.inception(made)}"],
}
SHOWN = {
    "unet": ["run", "diffusers", "run?untrained"], "pixels": ["pixels"], "adm": ["adm", "adm classes", "adm?untrained"],
    "edm": ["EDM", "EDM?untrained"],
    "scoresde": ["score SDE"], "dit": ["DiT", "DiT?untrained"], "latent": ["SD", "SDXL", "SD?untrained"],
    "flow": ["SD3"], "flux": ["Flux"], "timm": ["timm ViT", "timm ResNet"], "torchvision": ["SqueezeNet", "ResNet-18"],
    "inception": ["Inception"],
}  # fmt: skip
MODELS = [(member, k) for member, names in SHOWN.items() for k in range(len(names))]


@pytest.fixture(scope="module", params=MODELS, ids=[SHOWN[member][k] for member, k in MODELS])
def backbone(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    member, k = request.param
    made = tmp_path_factory.getbasetemp() / "models"
    return base.load(EXAMPLES[member](tiny_run, made)[k], device="cpu", precision="fp32")


@pytest.fixture
def diffusion(backbone: Backbone) -> DiffusionBackbone:
    if not isinstance(backbone, DiffusionBackbone):
        pytest.skip("reads clean images")
    return backbone


@pytest.fixture
def images(backbone: Backbone) -> Tensor:
    """Five random colour images of the network's own size."""
    side = backbone.image_size
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, side, side), dtype=np.uint8))


def step(backbone: Backbone) -> float | None:
    return backbone.step(0.3) if isinstance(backbone, DiffusionBackbone) else None


def diffusion_shape(backbone: Backbone) -> tuple[int, ...] | None:
    return backbone.sample_shape if isinstance(backbone, DiffusionBackbone) else None


def own_noise(backbone: Backbone, x: Tensor) -> Tensor | None:
    if not isinstance(backbone, DiffusionBackbone):
        return None
    return torch.from_numpy(noise.normal(0, range(len(x)), x.shape[1:]))


def everything(backbone: Backbone, images: Tensor) -> dict[BlockName, Tensor]:
    """Every block's features in one call."""
    x = backbone.preprocess(images)
    return backbone.features(x, step(backbone), [b.number for b in backbone.blocks], own_noise(backbone, x))


def ladder(backbone: DiffusionBackbone) -> list[float]:
    """Native steps from little to much noise, all different."""
    return list(dict.fromkeys(backbone.step(sigma) for sigma in (0.05, 0.1, 0.3, 1.0, 5.0)))


def networks(backbone: Backbone) -> list[nn.Module]:
    return [value for value in vars(backbone).values() if isinstance(value, nn.Module)]


def test_every_member_has_an_example() -> None:
    assert set(registry.names("backbones")) == set(EXAMPLES)


def test_parameters_are_those_of_the_network(backbone: Backbone, tiny_run: Path) -> None:
    if backbone.name.startswith("pixels"):
        assert backbone.parameters == 0
    else:
        assert backbone.parameters > 100
    told = json.loads((tiny_run / "finished.json").read_text())["parameters"]
    assert base.load(str(tiny_run)).parameters == told


def test_blocks_are_numbered_from_one_along_the_forward_pass(backbone: Backbone) -> None:
    assert [b.number for b in backbone.blocks] == list(range(1, len(backbone.blocks) + 1))
    assert len({b.name for b in backbone.blocks}) == len(backbone.blocks)
    shares = [b.share for b in backbone.blocks]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1


def test_features_have_the_size_that_blocks_promise(backbone: Backbone, images: Tensor) -> None:
    found = everything(backbone, images)
    for block in backbone.blocks:
        features = found[block.number]
        assert pooling.as_map(features).shape == (5, block.channels, block.size, block.size), block
        assert features.dtype == backbone.placement.dtype and features.isfinite().all()
        assert not features.requires_grad


def test_all_blocks_in_one_pass_equal_each_block_alone(backbone: Backbone, images: Tensor) -> None:
    together = everything(backbone, images)
    x = backbone.preprocess(images)
    for number, features in together.items():
        alone = backbone.features(x, step(backbone), [number], own_noise(backbone, x))
        assert list(alone) == [number]
        assert torch.equal(alone[number], features)


def test_numbers_and_names_are_the_same_blocks(backbone: Backbone, images: Tensor) -> None:
    x = backbone.preprocess(images)
    for block in {backbone.blocks[0], backbone.blocks[-1]}:
        asked: list[BlockName] = [block.name, block.number, str(block.number)]
        found = backbone.features(x, step(backbone), asked, own_noise(backbone, x))
        assert list(found) == asked
        assert all(torch.equal(features, found[block.number]) for features in found.values())


def test_the_order_of_asking_does_not_matter(backbone: Backbone, images: Tensor) -> None:
    x = backbone.preprocess(images)
    together = everything(backbone, images)
    found = backbone.features(x, step(backbone), list(together)[::-1], own_noise(backbone, x))
    assert list(found) == list(together)[::-1]
    assert all(torch.equal(found[number], together[number]) for number in together)


def test_batching_does_not_change_the_features(backbone: Backbone, images: Tensor) -> None:
    x, t = backbone.preprocess(images), step(backbone)
    own, last = own_noise(backbone, x), backbone.blocks[-1].number
    whole = backbone.features(x, t, [last], own)[last]
    parts = [
        backbone.features(x[rows], t, [last], None if own is None else own[rows])[last]
        for rows in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4)


def test_nothing_asked_is_nothing_given(backbone: Backbone, images: Tensor) -> None:
    assert backbone.features(backbone.preprocess(images), step(backbone), []) == {}


def test_reading_costs_the_share_that_blocks_promise(diffusion: DiffusionBackbone, images: Tensor) -> None:
    x, t = diffusion.preprocess(images), step(diffusion)
    assert t is not None

    def cost(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    whole = cost(lambda: diffusion.denoise(x, t))
    for block in diffusion.blocks:
        spent = cost(lambda number=block.number: diffusion.features(x, t, [number]))
        assert spent / whole == pytest.approx(block.share, abs=1e-6), block.name


def test_no_block_behind_the_deepest_one_runs(backbone: Backbone, images: Tensor) -> None:
    if not isinstance(backbone, DiffusionNetwork):
        pytest.skip("looks at the places of a diffusion network")
    x, t, ran = backbone.preprocess(images), step(backbone), []
    assert t is not None
    order = backbone.parts.places
    handles = [p.module.register_forward_hook(lambda *_, name=p.name: ran.append(name)) for p in order]
    try:
        for k, place in enumerate(order, start=1):
            ran.clear()
            backbone.features(x, t, [1, place.name])
            assert ran == [p.name for p in order[:k]]
        ran.clear()
        backbone.denoise(x, t)
        assert ran == [p.name for p in order]
    finally:
        for handle in handles:
            handle.remove()


def test_no_hooks_are_left_behind(backbone: Backbone, images: Tensor) -> None:
    everything(backbone, images)
    with pytest.raises(RuntimeError) if networks(backbone) else pytest.MonkeyPatch.context():
        strange = torch.zeros(2, 7, backbone.image_size, backbone.image_size)
        backbone.features(strange, step(backbone), [backbone.blocks[-1].number])
    for network in networks(backbone):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_reading_changes_neither_the_network_nor_its_input(diffusion: DiffusionBackbone, images: Tensor) -> None:
    x, t = diffusion.preprocess(images), step(diffusion)
    assert t is not None
    kept, before = x.clone(), diffusion.denoise(x, t)
    everything(diffusion, images)
    diffusion.features(x, t, [len(diffusion.blocks)], own_noise(diffusion, x))
    assert torch.equal(x, kept)
    assert torch.equal(diffusion.denoise(x, t), before)
    assert before.shape == x.shape == (5, *diffusion.sample_shape)


def test_without_noise_the_images_count_as_noised(diffusion: DiffusionBackbone, images: Tensor) -> None:
    x, t = diffusion.preprocess(images), step(diffusion)
    own = own_noise(diffusion, x)
    assert t is not None and own is not None
    here = diffusion.features(x, t, ["1", 2], own)
    there = diffusion.features(diffusion.noised(x, t, own), t, ["1", 2])
    assert all(torch.equal(here[b], there[b]) for b in here)
    assert not torch.equal(here[2], diffusion.features(x, t, [2])[2])


def test_every_image_may_have_a_step_of_its_own(diffusion: DiffusionBackbone, images: Tensor) -> None:
    x, own = diffusion.preprocess(images), own_noise(diffusion, diffusion.preprocess(images))
    assert own is not None
    steps = ladder(diffusion)
    assert len(steps) == 5
    number = len(diffusion.blocks)
    together = diffusion.features(x, torch.tensor(steps), [number], own)[number]
    for k, t in enumerate(steps):
        alone = diffusion.features(x[k : k + 1], t, [number], own[k : k + 1])[number]
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-4, atol=1e-4)


def test_sigma_grows_with_the_step_and_step_is_its_inverse(diffusion: DiffusionBackbone) -> None:
    steps = ladder(diffusion)
    if isinstance(diffusion.process, Ladder):
        steps = [float(t) for t in range(diffusion.process.length)]
    sigmas = [diffusion.sigma(t) for t in steps]
    assert all(sigma is not None and sigma > 0 for sigma in sigmas)
    assert (np.diff(np.array(sigmas, dtype=float)) > 0).all()
    assert [diffusion.step(sigma) for sigma in sigmas if sigma] == pytest.approx(steps)


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_steps_to_sample_at_go_down_from_the_noisiest(diffusion: DiffusionBackbone, count: int) -> None:
    process = diffusion.process
    for steps in (process.own_steps(count), process.karras_steps(count)):
        assert len(steps) == count and all(process.holds(t) for t in steps)
        assert steps == sorted(steps, reverse=True)
    assert process.own_steps(count)[0] == process.most
    assert process.holds(process.least) and process.sigma(process.least) < process.sigma(process.most)


def test_the_estimate_is_the_clean_image(diffusion: DiffusionBackbone, images: Tensor) -> None:
    x, t = diffusion.preprocess(images), step(diffusion)
    assert t is not None
    clean, variance = diffusion.estimate(x, t)
    assert torch.equal(clean, diffusion.denoise(x, t))
    assert variance is None or variance.shape == x.shape
    assert len(diffusion.class_names) in (0, diffusion.classes)


def test_sigma_is_the_ratio_of_noise_to_signal(diffusion: DiffusionBackbone) -> None:
    ones = torch.ones(1, *diffusion.sample_shape)
    for t in ladder(diffusion):
        spread = diffusion.noised(torch.zeros_like(ones), t, ones)
        signal = diffusion.noised(ones, t, torch.zeros_like(ones))
        assert float((spread / signal).mean()) == pytest.approx(diffusion.sigma(t), rel=1e-4)


def test_a_network_that_knows_the_noise_gives_the_clean_image_back(
    diffusion: DiffusionBackbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a family predicts, told the truth about it `denoise` undoes `noised`."""
    assert isinstance(diffusion, DiffusionNetwork)
    x, own = diffusion.preprocess(images), own_noise(diffusion, diffusion.preprocess(images))
    assert own is not None
    for t in ladder(diffusion):
        signal, spread = diffusion.coefficients(diffusion.native(t, len(x)))
        truth = {
            _processes.from_noise: own,
            _processes.from_velocity: signal * own - spread * x,
            _processes.from_clean: x,
            _processes.from_flow: own - x,
            # d log N(x_t; x, spread^2) / d x_t = -noise / spread for images in -1..1, twice that for 0..1.
            _processes.from_unit_score: -2 * own / spread,
        }.get(diffusion.parts.prediction)
        if truth is None:
            # EDM with images of standard deviation 1/2 (Karras et al. 2022, table 1): (x - c_skip x_t) / c_out.
            total = spread**2 + 0.25
            truth = (x - 0.25 / total * (x + spread * own)) * 2 * total.sqrt() / spread
        monkeypatch.setattr(diffusion, "_predict", lambda *_, truth=truth: truth)
        torch.testing.assert_close(diffusion.denoise(diffusion.noised(x, t, own), t), x, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_an_impossible_sigma_is_one_clear_line(backbone: Backbone, sigma: float) -> None:
    with pytest.raises(BadSetting):
        backbone.step(sigma)


def test_an_endless_sigma_is_one_clear_line(diffusion: DiffusionBackbone) -> None:
    with pytest.raises(BadSetting):
        diffusion.step(float("inf"))


def test_encoders_have_no_noise_step(backbone: Backbone) -> None:
    assert backbone.sigma(None) is None
    if isinstance(backbone, DiffusionBackbone):
        return
    backbone.check_step(None)
    for refused in (lambda: backbone.check_step(0), lambda: backbone.step(0.3)):
        with pytest.raises(BadSetting, match="clean images"):
            refused()


def test_an_unknown_block_says_what_there_is(backbone: Backbone, images: Tensor) -> None:
    count, x = len(backbone.blocks), backbone.preprocess(images)
    for number in (0, -1, count + 1, str(count + 1)):
        with pytest.raises(BadSetting, match=f"1 to {count}"):
            backbone.features(x, step(backbone), [number])
    name = backbone.blocks[-1].name
    with pytest.raises(UnknownName, match=f"Did you mean '{name}'|Did you mean .* or '{name}'"):
        backbone.features(x, step(backbone), [name + "x"])


def test_a_step_outside_the_schedule_says_the_range(diffusion: DiffusionBackbone) -> None:
    outside: list[float | None] = [-1, 1_000_000, float("nan"), float("inf"), None]
    if isinstance(diffusion.process, Ladder):
        outside += [0.5, diffusion.process.length]
    for t in outside:
        with pytest.raises(BadSetting, match=diffusion.process.allowed):
            diffusion.check_step(t)
    for t in ladder(diffusion):
        diffusion.check_step(t)


@pytest.mark.parametrize("t", [-1, 1_000_000])
def test_features_refuse_such_a_step_too(diffusion: DiffusionBackbone, images: Tensor, t: float) -> None:
    x = diffusion.preprocess(images)
    with pytest.raises(BadSetting, match="noise step"):
        diffusion.features(x, t, [1], own_noise(diffusion, x))


def test_a_diffusion_model_without_a_step_is_one_clear_line(diffusion: DiffusionBackbone, images: Tensor) -> None:
    with pytest.raises(BadSetting, match="--t"):
        diffusion.features(diffusion.preprocess(images), None, [1])


def test_black_and_white_end_at_the_ends_of_the_range(backbone: Backbone, images: Tensor) -> None:
    assert backbone.preprocess(images).dtype == torch.float32
    if backbone.preprocessing["range"] == "latents":
        pytest.skip("latents have no ends")
    low, high = (float(end) for end in backbone.preprocessing["range"].split(".."))
    assert isinstance(backbone, DiffusionBackbone) <= ((low, high) == (-1, 1))
    assert float(backbone.preprocess(torch.zeros_like(images)).min()) == pytest.approx(low, rel=1e-3)
    assert float(backbone.preprocess(torch.full_like(images, 255)).max()) == pytest.approx(high, rel=1e-3)


def test_images_of_other_sizes_are_resized(backbone: Backbone) -> None:
    side = backbone.image_size
    shapes = [(side, side), (3 * side + 1, 2 * side), (side // 2, side), (5 * side, 4 * side)]
    mixed = [torch.full((3, *shape), 90, dtype=torch.uint8) for shape in shapes]
    x = backbone.preprocess(mixed)
    assert x.shape == backbone.preprocess(mixed[0][None]).expand(4, -1, -1, -1).shape
    torch.testing.assert_close(x, x[:1].expand_as(x))
    assert diffusion_shape(backbone) in (None, tuple(x.shape[1:]))


def test_pixels_undo_preprocessing(diffusion: DiffusionBackbone, images: Tensor) -> None:
    if diffusion.preprocessing["range"] == "latents":
        shown = diffusion.pixels(diffusion.preprocess(images))
        assert shown.dtype == np.uint8 and shown.shape == (5, diffusion.image_size, diffusion.image_size, 3)
        return
    grey = images[:, :1].expand(-1, 3, -1, -1)
    back = diffusion.pixels(diffusion.preprocess(grey))
    assert back.dtype == np.uint8
    channel = back if back.ndim == 3 else back[..., 0]
    np.testing.assert_array_equal(channel, grey[:, 0].numpy())


def test_two_loads_are_the_same_network(backbone: Backbone, images: Tensor) -> None:
    torch.manual_seed(5)
    again = base.load(backbone.name, device="cpu", precision="fp32")
    assert (again.identity, again.name, again.blocks) == (backbone.identity, backbone.name, backbone.blocks)
    here, there = everything(backbone, images), everything(again, images)
    assert all(torch.equal(here[b], there[b]) for b in here)


def test_loading_leaves_the_global_seed_alone(backbone: Backbone) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    base.load(backbone.name, device="cpu", precision="fp32")
    assert torch.equal(torch.rand(1), wanted)


def test_identity_is_of_the_weights_and_not_of_the_folder(tiny_run: Path, tmp_path: Path) -> None:
    trained, untrained = base.load(str(tiny_run)), base.load(f"{tiny_run}?untrained")
    assert trained.identity == base.load(f"diffusers:{tiny_run}").identity
    assert trained.identity != untrained.identity
    elsewhere = shutil.copytree(tiny_run, tmp_path / "elsewhere")
    assert base.load(f"run:{elsewhere}").identity == trained.identity
    assert base.load(f"run:{elsewhere}?untrained").identity == untrained.identity

    # Another schedule is another network, trained or not.
    scheduler = elsewhere / "scheduler" / "scheduler_config.json"
    kept = scheduler.read_text()
    scheduler.write_text(json.dumps({**json.loads(kept), "beta_end": 0.03}))
    assert base.load(str(elsewhere)).identity != trained.identity
    scheduler.write_text(kept)

    # So is one weight that differs.
    (file,) = (elsewhere / "unet").glob("*.safetensors")
    weights = load_file(file)
    weights["conv_in.bias"] = weights["conv_in.bias"] + 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert base.load(str(elsewhere)).identity != trained.identity
    assert base.load(f"{elsewhere}?untrained").identity == untrained.identity


@pytest.mark.parametrize(("levels", "layers", "count", "middle"), [(6, 2, 37, 19), (3, 1, 13, 7), (2, 1, 9, 5)])
def test_u_nets_are_numbered_as_in_the_paper(levels: int, layers: int, count: int, middle: int) -> None:
    """P1 reads ADM-256, six levels of two layers, at b = 1..37; b = 19 is the middle block."""
    from diffusers import UNet2DModel

    from twofold.backbones._unet import places

    with torch.device("meta"):
        unet = UNet2DModel(
            sample_size=64, layers_per_block=layers, block_out_channels=(32,) * levels,
            down_block_types=("DownBlock2D",) * levels, up_block_types=("UpBlock2D",) * levels,
        )  # fmt: skip
    found = places(unet)
    assert len(found) == len({p.name for p in found}) == count
    assert found[middle - 1].module is unet.mid_block and found[0].module is unet.conv_in
    assert found[-1].module is unet.up_blocks[-1].resnets[-1]
    # A decoder level's up-sampling belongs to its last layer.
    assert found[middle + layers].module is unet.up_blocks[0].upsamplers[0]
    assert [p.name.partition(".")[0] for p in found] == (
        ["conv_in", *["down"] * (middle - 2), "mid", *["up"] * (count - middle)]
    )
