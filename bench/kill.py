"""Kill -9 at random, again and again, in a training run of two processes; then compare it with one that ran through.

    python bench/kill.py [KILLS] [SEED]

Both train the same small network on digits, in two processes of torchrun on gloo. One is killed (launcher and both
processes) KILLS times after a random time that lets it pass a checkpoint or not, and started again by the same command.
It prints how far each life came, and whether the final weights are equal bit for bit; the exit code is 1 if not.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

IMAGES = 24_000
SETTINGS = (
    "--images", IMAGES, "--batch", 16, "--widths", "8,8", "--warmup", 500, "--ema", 300, "--save-every", 160,
    "--log-every", 80, "--probe-every", 8_000, "--augment", "edm", "--labels", "--device", "cpu", "--quiet",
)  # fmt: skip
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def start(out: Path) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    told = ["-m", "twofold.cli", "pretrain", "--data", "digits", "--out", out, *SETTINGS]
    quiet, env = subprocess.DEVNULL, {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*launcher, *map(str, told)], stdout=quiet, stderr=quiet, env=env)


def kill(process: subprocess.Popen[bytes]) -> None:
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait()


def seen(out: Path) -> int:
    import torch

    path = out / "checkpoint.pt"
    return int(torch.load(path, weights_only=True)["seen"]) if path.exists() else 0


def main(kills: int, seed: int) -> int:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="twofold-kill-") as scratch:
        killed, whole = Path(scratch) / "killed", Path(scratch) / "whole"
        started = time.monotonic()
        process = start(whole)
        while not (whole / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.05)
        first = time.monotonic() - started
        if process.wait():
            print("the run that nobody kills failed")
            return 1
        # Some lives end before they have begun to train; together they must not reach the end.
        each = (time.monotonic() - started - first) / kills
        for k in range(kills):
            process = start(killed)
            time.sleep(chance.uniform(0.5 * first, first + 1.5 * each))
            if process.poll() is not None:
                print(f"life {k + 1} was done before it was killed; give fewer KILLS")
                break
            kill(process)
            print(f"life {k + 1} ended with a checkpoint of {seen(killed):,} of {IMAGES:,} images")
        if start(killed).wait():
            print("the run that was killed did not end")
            return 1
        same = (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
        print(f"final weights are {'equal bit for bit' if same else 'DIFFERENT'}")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*(int(a) for a in (*sys.argv[1:], *("10", "0")[len(sys.argv) - 1 :]))))
