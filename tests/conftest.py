"""Shared by all tests: no network, and one tiny trained model made by the real command."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
# Tests share the processor: threads that wait for one another must not keep it busy meanwhile. Before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import browsing
from twofold import cli
from twofold.backbones import _placement

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _copies(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hugging Face's datasets keeps copies of parquet files; those of tests go with them."""
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="session", autouse=True)
def _slow_bf16_was_told() -> None:
    """What a test reads does not depend on the processor, nor on who asked for bf16 first."""
    logging.disable()
    _placement._tell_slow()
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `twofold pretrain` of a very small network on digits."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["pretrain", "--data", "digits", "--out", str(folder), "--images", "512", "--widths", "16,16"]
    assert cli.run([*arguments, "--probe-every", "256", "--log-every", "128", "--save-every", "256", "--quiet"]) == 0
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A headless Chromium with an empty profile."""
    if not (browsing.CHROMIUM and browsing.DRIVER):
        pytest.skip("no chromium or chromedriver on PATH; scripts/install-chromium.sh installs them")
    driver = browsing.started(tmp_path / "profile")
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED.name}/ beside the checkout")
    return SHARED
