"""Training: what the settings mean, what is kept when it goes wrong, and the same curve from several processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twofold import files

Command = Callable[..., tuple[int, str, str]]
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", 32, "--warmup", 0, "--ema", 0, "--quiet")


def train(command: Command, out: Path, *arguments: object) -> list[dict[str, float]]:
    """Train to the end; what was noted, without the seconds it took."""
    code, _, err = command(*TINY, "--out", out, *arguments)
    assert code == 0, err
    return [{n: v for n, v in r.items() if n != "seconds"} for r in files.read_lines(out / "metrics.jsonl")]


def test_no_clipping_is_the_same_as_clipping_at_a_norm_that_is_never_reached(tmp_path: Path, command: Command) -> None:
    often = ("--images", 192, "--log-every", 32, "--probe-every", 0)
    found = {clip: train(command, tmp_path / str(clip), *often, "--clip", clip) for clip in (0, 1e9, 1e-9)}
    assert found[0] == found[1e9] != found[1e-9]
