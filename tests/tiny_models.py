"""The smallest networks of every family, saved as people have them, so that tests go through the real loading code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIDE = 8  # of latents


def pipeline(kind: str, folder: Path) -> Path:
    """A diffusers pipeline folder of this class."""
    if not (folder / "model_index.json").exists():
        torch.manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            MAKERS[kind]().save_pretrained(folder)
    return folder


def _autoencoder(channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=channels, norm_num_groups=4, sample_size=2 * SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    ).eval()  # fmt: skip


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return CLIPTokenizer(vocab={w: k for k, w in enumerate(words)}, merges=[], model_max_length=77)


def _text(width: int, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=60, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _conditioned(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    ).eval()  # fmt: skip


def _scheduler(**more: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False, **more
    )


def _stable_diffusion() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        _autoencoder(), _text(16), _tokenizer(), _conditioned(cross_attention_dim=16),
        _scheduler(prediction_type="v_prediction"), None, None, requires_safety_checker=False,
    )  # fmt: skip


def _stable_diffusion_xl() -> Any:
    from diffusers import StableDiffusionXLPipeline

    unet = _conditioned(
        cross_attention_dim=24, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        _autoencoder(), _text(8), _text(16, projected=True), _tokenizer(), _tokenizer(), unet, _scheduler()
    )


def _stable_diffusion_3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=24, caption_projection_dim=8, pooled_projection_dim=24, out_channels=4,
        pos_embed_max_size=8,
    ).eval()  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), _autoencoder(shift_factor=0.05),
        _text(8, projected=True), _tokenizer(), _text(16, projected=True), _tokenizer(), None, None,
    )  # fmt: skip


def _flux(guided: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=12, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4), guidance_embeds=guided,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guided, shift=3.0 if guided else 1.0)
    return FluxPipeline(
        scheduler, _autoencoder(shift_factor=0.05), _text(8), _tokenizer(), _text_of_t5(12), _tokenizer_of_t5(),
        transformer,
    )  # fmt: skip


def _text_of_t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=60, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def _tokenizer_of_t5() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import T5TokenizerFast

    words = ["<pad>", "</s>", "<unk>", *(chr(c) for c in range(97, 123))]
    unigram = Tokenizer(models.Unigram([(word, 0.0) for word in words], unk_id=2))
    return T5TokenizerFast(tokenizer_object=unigram, extra_ids=0)


def _dit() -> Any:
    from diffusers import DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, out_channels=8, num_layers=3, attention_head_dim=4,
        num_attention_heads=2, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    return DiTPipeline(transformer, _autoencoder(), _scheduler())


def _score_sde() -> Any:
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=8,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"), norm_eps=1e-6, time_embedding_type="fourier",
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"), mid_block_scale_factor=2**0.5,
    ).eval()  # fmt: skip
    return ScoreSdeVePipeline(unet, ScoreSdeVeScheduler())


def _edm() -> Any:
    from diffusers import ConsistencyModelPipeline, EDMEulerScheduler

    return ConsistencyModelPipeline(_labelled(), EDMEulerScheduler())


def _class_conditional() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler

    return DDPMPipeline(_labelled(), DDPMScheduler())


def _labelled() -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8, num_class_embeds=10,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


MAKERS = {
    "DDPMPipeline": _class_conditional,
    "ConsistencyModelPipeline": _edm,
    "ScoreSdeVePipeline": _score_sde,
    "DiTPipeline": _dit,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": lambda: _flux(guided=True),
    "FluxPipeline of schnell": lambda: _flux(guided=False),
}


def adm(folder: Path, name: str = "adm", **flags: Any) -> Path:
    """A guided-diffusion state dict with its flags beside it."""
    from adm_reference import Flags, random_state

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    if not path.exists():
        chosen = Flags(**flags)
        torch.save(random_state(chosen), path)
        path.with_suffix(".json").write_text(json.dumps(chosen.written()))
    return path


def weights(folder: Path, network: Any, prefix: str = "", **others: Tensor) -> Path:
    """A network's weights as a safetensors file, their names behind a prefix."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "weights.safetensors"
    save_file({**{prefix + n: w.contiguous() for n, w in network.state_dict().items()}, **others}, path)
    return path


def inception(folder: Path) -> Path:
    """Random weights of torch-fidelity's Inception, in its own layout; signals neither die nor explode on their way."""
    from twofold.backbones import base

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inception.pth"
    if not path.exists():
        state = dict(base.load("inception?untrained", device="cpu", precision="fp32").network.state_dict())
        chance = torch.Generator().manual_seed(0)
        for name, value in state.items():
            if name.endswith("conv.weight"):
                state[name] = 6**0.5 * value
            elif name.endswith("running_mean"):
                state[name] = 0.1 * torch.randn(value.shape, generator=chance)
        state |= {"fc.weight": torch.randn(1008, 2048, generator=chance), "fc.bias": torch.zeros(1008)}
        torch.save(state, path)
    return path
