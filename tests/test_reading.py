"""Around the forward pass: reading ahead, batch sizes, and what is told apart in a store."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twofold
from twofold.backbones import _placement
from twofold.backbones.base import place
from twofold.steps import _batching
from twofold.steps._ahead import ahead


def test_ahead_gives_the_same_items_in_the_same_order() -> None:
    assert list(ahead(range(7))) == list(range(7))
    assert list(ahead([])) == []
    assert list(ahead([None, 0, None])) == [None, 0, None]


def test_ahead_works_while_the_consumer_works() -> None:
    made: list[int] = []

    def source() -> Any:
        for k in range(9):
            made.append(k)
            yield k

    items = ahead(source(), depth=2)
    assert next(items) == 0
    limit = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    assert made == [0, 1, 2]  # the one given and two ahead of it, no more: memory stays flat
    assert list(items) == list(range(1, 9))


def test_an_error_ahead_comes_in_its_place() -> None:
    def source() -> Any:
        yield 1
        raise ValueError("the second")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    items = ahead(range(100))
    next(items)
    items.close()
    assert threading.active_count() == before


def test_the_batch_follows_work_and_memory(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = twofold.load_backbone(str(tiny_run), device="cpu", precision="fp32")
    assert _batching.choose(backbone, 9) == _batching.MOST  # a tiny network
    cost = backbone.cost(9)
    assert cost.operations > backbone.cost(3).operations > 0
    # What is alive at the widest place: at least one map of its first block, at most all that was ever made.
    assert 16 * 8 * 8 * 4 <= cost.memory <= 100 * 16 * 8 * 8 * 4
    monkeypatch.setattr(_batching, "_free", lambda _: 5 * cost.memory / _batching.SHARE)
    assert _batching.choose(backbone, 9) == 4
    monkeypatch.setattr(_batching, "_free", lambda _: 0)
    assert _batching.choose(backbone, 9) == 1


def test_a_heavy_network_gets_small_batches() -> None:
    """ADM-256 up to b = 24 is 639 GFLOP an image: two are enough to keep two cores busy."""
    backbone = twofold.load_backbone("timm:resnet50", weightless=True)
    number = len(backbone.blocks)
    assert 2 <= _batching.choose(backbone, number) < _batching.MOST


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_freed_memory_stays_with_the_process() -> None:
    """A large freed block still counts as the process's own, and is used again, where the C library can be told so."""
    kept, grown, asked = _after_freed_blocks()
    assert kept and grown > 40 << 20
    assert asked < 1000  # pages, in ten blocks of 12,288 each
    kept, grown, asked = _after_freed_blocks(MALLOC_ARENA_MAX="1")  # its user has set it otherwise
    assert not kept and grown < 20 << 20


def _after_freed_blocks(**variables: str) -> tuple[bool, int, int]:
    """Free 40 blocks of 48 MiB: whether memory is kept, growth in bytes, pages asked for by the last ten blocks."""
    asks = textwrap.dedent("""
        import psutil, resource, torch
        from twofold.backbones import _memory
        size, pages = psutil.Process().memory_info, lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1024)
        kept, before = _memory.keep(), size().rss
        # Small pieces between blocks keep some of them apart at first; after a few they are joined and used again.
        counts = [torch.ones(48 << 18) is not None and pages() for _ in range(40)]
        print(int(kept), size().rss - before, counts[-1] - counts[-11])
    """)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    told = subprocess.run(
        [sys.executable, "-c", asks], env={**environment, **variables}, capture_output=True, text=True, check=True
    )
    kept, grown, asked = map(int, told.stdout.split())
    return bool(kept), grown, asked


def test_the_label_is_part_of_what_features_are(tmp_path: Path, command: Any) -> None:
    import tiny_models

    model = f"diffusers:{tiny_models.pipeline('DDPMPipeline', tmp_path / 'model')}"

    def extract(out: str, *more: object) -> np.ndarray[Any, Any]:
        arguments = ("--model", model, "--data", "digits", "--out", tmp_path / out, "--split", "val", "--t", 20)
        code, _, err = command("extract", *arguments, "--blocks", "mid", "--quiet", *more)
        assert code == 0, err
        store = twofold.load_store(tmp_path / out)
        return store.read("val", store.cells("val")[0]).x

    none, three = extract("none"), extract("three", "--label", 3)
    assert not np.allclose(none, three)
    np.testing.assert_array_equal(extract("none"), none)
    code, _, err = command(
        "extract", "--model", model, "--data", "digits", "--out", tmp_path / "none", "--split", "val", "--label", 3
    )
    assert code == 2 and "label is None there, 3 here" in err
    code, _, err = command(
        "extract", "--model", model, "--data", "digits", "--out", tmp_path / "x", "--split", "val", "--label", 10
    )
    assert code == 2 and "0 to 9" in err
    code, _, err = command("extract", "--model", "pixels:8", "--data", "digits", "--out", tmp_path / "y", "--label", 1)
    assert code == 2 and "knows no classes" in err


@pytest.mark.parametrize("model", ["run", "torchvision:resnet18?untrained", "timm:test_resnet?untrained"])
def test_compiled_networks_read_the_same(model: str, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler itself is left out (it takes minutes); what it is given and when it is called is the same."""
    called: list[object] = []

    def compiler(module: Any, _inputs: object) -> Any:
        called.append(module)
        return module.forward

    monkeypatch.setattr("shutil.which", lambda _name: "a compiler")
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend=compiler))
    name = str(tiny_run) if model == "run" else model
    plain = twofold.load_backbone(name, device="cpu", precision="fp32")
    compiled = twofold.load_backbone(name, device="cpu", precision="fp32", compile=True)
    side, t = plain.image_size, 30 if model == "run" else None
    x = plain.preprocess(torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8))
    middle, last = len(plain.blocks) // 2, len(plain.blocks)
    for asked in ([middle], [middle, last]):
        here, there = (b.features(x, t, asked) for b in (plain, compiled))
        assert all(torch.allclose(here[b], there[b], atol=1e-4) for b in asked)
    assert called


def test_a_missing_compiler_is_told_before_any_work(
    tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for verb in (("pretrain", "--data", "digits"), ("extract", "--data", "digits", "--model", "pixels:8")):
        code, _, err = command(*verb, "--compile", "--device", "cpu", "--out", tmp_path / "out")
        assert code == 2 and err.count("\n") == 1 and "Install it" in err, err
        assert not (tmp_path / "out").exists()
    monkeypatch.setenv("CXX", sys.executable)
    assert place("cpu", "fp32", compile=True).compile


@pytest.mark.parametrize(("fast", "auto", "told"), [(False, torch.float32, 1), (True, torch.bfloat16, 0)])
def test_bf16_is_chosen_where_it_is_fast_and_told_of_where_it_is_slow(
    fast: bool, auto: torch.dtype, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_placement, "_fast_bf16", lambda _device: fast)
    monkeypatch.setattr(_placement, "_tell_slow", functools.cache(_placement._tell_slow.__wrapped__))
    said: list[str] = []
    monkeypatch.setattr(_placement.log, "warning", said.append)
    assert place("cpu", "auto").dtype == auto
    assert [place("cpu", "bf16").dtype for _ in range(2)] == [torch.bfloat16] * 2
    assert len(said) == told and all("many times slower" in line for line in said)


def test_auto_is_a_word_for_the_batch(tmp_path: Path, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("extract", "--model", "pixels:8", "--data", "digits", "--out", tmp_path / "a", "--split", "val")
    assert command(*arguments, "--batch", "auto", "--quiet")[0] == 0
    code, _, err = command(*arguments, "--batch", "some")
    assert code == 2 and "--batch" in err
    with pytest.raises(SystemExit):
        command("extract", "--help")
    assert "default: auto" in capsys.readouterr().out
