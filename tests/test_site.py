"""The documentation builds as pages; a link that leads nowhere or a name that is gone is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_site_builds_without_a_warning_and_has_every_verb(tmp_path: Path) -> None:
    from twofold import cli

    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    commands = (tmp_path / "commands.html").read_text()
    assert all(f'<section id="{name.replace(" ", "-")}">' in commands for name in cli.parsers())
    assert (tmp_path / "index.html").read_text().count("demo.png") >= 1
