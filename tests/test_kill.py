"""Real processes, killed for real: what goes on afterwards ends in the same bytes as what was never stopped."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import processes
from twofold import cli, files

pytestmark = pytest.mark.slow

SECONDS = 60.0  # the longest wait for a process to begin its work


def kill_when(begun: Callable[[], bool], arguments: list[str], unfinished: Callable[[], bool], count: int = 1) -> None:
    """Start `twofold`, and kill it -9 in the middle of its work: as soon as `begun`, before it is done."""
    with processes.Twofold(*arguments, count=count) as process:
        limit = time.monotonic() + SECONDS
        while not begun():
            assert process.code is None, process.err
            assert time.monotonic() < limit, "the work did not begin"
            time.sleep(0.001)
        assert process.code is None, "the process was done before it could be killed"
        process.kill()
    assert process.code == -signal.SIGKILL
    assert unfinished(), "nothing was left to do; make the work longer"


def finish(arguments: list[str]) -> None:
    assert cli.run([*arguments, "--quiet"]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those a killed writer leaves half done under a name that nobody reads."""
    found = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != ".partial")
    return {str(f.relative_to(folder)): f.read_bytes() for f in found}


def noted(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the seconds it took."""
    return [{n: v for n, v in r.items() if n != "seconds"} for r in files.read_lines(run / "metrics.jsonl")]


def flat(value: object) -> list[object]:
    """The leaves of a checkpoint."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in [key, *flat(value[key])]]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flat(part)]
    return [value]


def seen(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["seen"])


def test_training_killed_twice_ends_in_the_same_bits(tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        small = ["--images", "1920", "--batch", "16", "--widths", "8,8", "--warmup", "500", "--ema", "300"]
        often = ["--save-every", "160", "--log-every", "80", "--probe-every", "640"]
        return ["pretrain", "--data", "digits", "--out", str(out), *small, *often]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = killed / "checkpoint.pt"
    first: list[int] = []

    def unfinished() -> bool:
        first.append(seen(checkpoint))
        return first[-1] < 1920 and not (killed / "finished.json").exists()

    kill_when(checkpoint.exists, arguments(killed), unfinished)
    # The second time it dies with notes behind its last checkpoint, which the third start must take back.
    made = checkpoint.stat().st_mtime_ns
    kill_when(
        lambda: checkpoint.stat().st_mtime_ns > made and noted(killed)[-1]["images"] > seen(checkpoint),
        arguments(killed),
        unfinished,
    )
    assert 0 < first[0] < first[1]
    finish(arguments(killed))
    finish(arguments(whole))

    name = "unet/diffusion_pytorch_model.safetensors"
    resumed, wanted = load_file(killed / name), load_file(whole / name)
    assert resumed.keys() == wanted.keys()
    assert all(torch.equal(resumed[n], wanted[n]) for n in wanted)
    assert noted(killed) == noted(whole)
    states = [flat(torch.load(run / "checkpoint.pt", weights_only=True)) for run in (killed, whole)]
    for here, there in zip(*states, strict=True):
        assert torch.equal(here, there) if isinstance(here, torch.Tensor) else here == there
    facts = [json.loads((run / "finished.json").read_text()) for run in (killed, whole)]
    assert facts[0]["images"] == facts[1]["images"] == 1920
    assert [facts[0][name] for name in ("loss", "probe")] == [facts[1][name] for name in ("loss", "probe")]


def test_two_processes_killed_end_in_the_same_bits(tmp_path: Path) -> None:
    """All at once, as a machine that loses power; bench/kill.py does it ten times at random."""
    small = ["--images", "1600", "--batch", "16", "--widths", "8,8", "--warmup", "500", "--ema", "300"]
    often = ["--save-every", "160", "--log-every", "80", "--probe-every", "0", "--augment", "edm", "--labels"]

    def arguments(out: Path) -> list[str]:
        return ["pretrain", "--data", "digits", "--device", "cpu", "--out", str(out), *small, *often, "--quiet"]

    def together(out: Path) -> int | None:
        with processes.Twofold(*arguments(out), count=2) as process:
            return process.wait(SECONDS)

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = killed / "checkpoint.pt"
    kill_when(
        checkpoint.exists,
        arguments(killed),
        lambda: 0 < seen(checkpoint) < 1600 and not (killed / "finished.json").exists(),
        count=2,
    )
    assert together(killed) == together(whole) == 0
    assert noted(killed) == noted(whole)
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_sampling_killed_among_its_images_ends_in_the_same_bytes(tiny_run: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        return ["sample", "--model", str(tiny_run), "--out", str(out), "--num", "40", "--batch", "4", "--steps", "20"]

    def written(out: Path) -> int:
        return len(list((out / "images").glob("0*.png")))

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finish(arguments(whole))
    kill_when(lambda: written(killed) > 5, arguments(killed), lambda: written(killed) < 40)
    # A writer killed between opening and renaming leaves a file under a name of its own; it is swept away.
    (killed / "images" / f"{files.UNFINISHED}x.png").write_bytes(b"half")
    (killed / f"{files.UNFINISHED}x.json").write_bytes(b"half")
    finish(arguments(killed))
    assert contents(killed / "images") == contents(whole / "images")
    assert (killed / "grid.png").read_bytes() == (whole / "grid.png").read_bytes()
    assert not list(killed.rglob(f"{files.UNFINISHED}*"))


def test_an_extraction_killed_twice_ends_in_the_same_bytes(tiny_run: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        where = ["--t", "5,20,50,100", "--blocks", "1,5,9"]
        return ["extract", "--model", str(tiny_run), "--data", "digits", "--out", str(out), *where]

    def chunks(out: Path) -> int:
        return sum(f.is_file() and f.suffix != ".partial" for f in out.glob("*/features/*/c/*/*"))

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finish(arguments(whole))
    kill_when(lambda: chunks(killed) > 0, arguments(killed), lambda: chunks(killed) < chunks(whole))
    first = chunks(killed)
    kill_when(lambda: chunks(killed) > first, arguments(killed), lambda: chunks(killed) < chunks(whole))
    kept = contents(killed)
    finish(arguments(killed))
    after = contents(killed)
    assert after == contents(whole)
    assert {name: after[name] for name in kept} == kept


def test_extractions_that_run_at_once_fill_one_store(tiny_run: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        where = ["--t", "20,100", "--blocks", "1,5,9", "--split", "train,val"]
        return ["extract", "--model", str(tiny_run), "--data", "digits", "--out", str(out), *where]

    finish(arguments(tmp_path / "alone"))
    with ExitStack() as stack:
        told = (*arguments(tmp_path / "together"), "--quiet", "--json")
        begun = [stack.enter_context(processes.Twofold(*told)) for _ in range(3)]
        assert [process.wait(SECONDS) for process in begun] == [0] * 3, [process.err for process in begun]
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    # Each did what the others had not taken, and nobody did anything twice.
    assert sum(json.loads(process.out)["passes"] for process in begun) == 2 * (1078 + 269)


def test_a_selection_killed_among_its_cells_ends_in_the_same_bytes(tiny_run: Path, tmp_path: Path) -> None:
    shared = tmp_path / "features"

    def arguments(out: Path) -> list[str]:
        where = ["--t", "20,100", "--features", str(shared)]
        return ["select", "--model", str(tiny_run), "--data", "digits", "--out", str(out), *where]

    def judged(out: Path) -> int:
        path = out / "map.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finish(arguments(whole))
    kill_when(lambda: judged(killed) >= 3, arguments(killed), lambda: not (killed / "choice.json").exists())
    assert judged(killed) < judged(whole) == 9 * 2 * 2
    finish(arguments(killed))
    for name in ("map.jsonl", "choice.json", "results.jsonl", "map.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("mode", "more", "deaths"),
    [
        ("frozen", ["--seeds", "2", "--rates", "0.01", "--shots", "40"], [5]),  # in the second training
        ("full", ["--rates", "0.003,0.01", "--shots", "16"], [2, 4]),  # within each rate, whose optimiser starts anew
        ("difffeed", ["--rates", "0.01,0.003", "--shots", "16", "--head", "attention?tokenizer=p2&width=16"], [2]),
    ],
)
def test_tuning_killed_ends_in_the_same_bytes(
    mode: str, more: list[str], deaths: list[int], tiny_run: Path, tmp_path: Path
) -> None:
    def arguments(out: Path) -> list[str]:
        where = ["--model", str(tiny_run), "--data", "digits", "--out", str(out), "--block", "mid", "--t", "30"]
        return ["finetune", "--mode", mode, *where, "--device", "cpu", "--epochs", "3", *more]

    def epochs(out: Path) -> int:
        return sum(path.read_bytes().count(b"\n") for path in out.rglob("metrics.jsonl"))

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finish(arguments(whole))
    for count in deaths:
        kill_when(lambda count=count: epochs(killed) >= count, arguments(killed), lambda: epochs(killed) < 6)
    finish(arguments(killed))
    assert epochs(killed) == epochs(whole) == 6
    after, wanted = contents(killed), contents(whole)
    assert after.keys() == wanted.keys()
    # What tells when, where and by which command it was made may differ.
    assert {name for name in wanted if after[name] != wanted[name]} <= {"config.toml", "log.txt"}


def test_a_rival_killed_goes_on_to_the_same_bits(tiny_run: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        often = ["--images", "1920", "--batch", "16", "--save-every", "160", "--log-every", "80"]
        return ["rival", "masked", "--data", "digits", "--like", str(tiny_run), "--out", str(out), *often]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = killed / "checkpoint.pt"
    kill_when(
        checkpoint.exists,
        arguments(killed),
        lambda: seen(checkpoint) < 1920 and not (killed / "finished.json").exists(),
    )
    finish(arguments(killed))
    finish(arguments(whole))
    name = "unet/diffusion_pytorch_model.safetensors"
    resumed, wanted = load_file(killed / name), load_file(whole / name)
    assert resumed.keys() == wanted.keys() and all(torch.equal(resumed[n], wanted[n]) for n in wanted)
    assert noted(killed) == noted(whole)
