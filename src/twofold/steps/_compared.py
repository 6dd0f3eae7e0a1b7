"""What a run of `compare` has to show on a page: its heat maps, means and best matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twofold.records import number_text
from twofold.steps import _page
from twofold.steps._page import RunFolder

KINDS = {
    "blocks": "Similarity (CKA) of blocks, from below: first to last",
    "steps": "Similarity (CKA) of noise steps, a map for each block",
    "pools": "Similarity (CKA) of pools, a map for each block",
}
UNTRAINED = "cka-untrained"
NAMES = {
    "cka_mean": "all pairs of blocks", "cka_same": "equal blocks", "cka_mirrored": "mirrored blocks",
    "cka_unmirrored": "other pairs of both halves", "cka_mirror_gain": "mirrored less other pairs",
    "cka_pool_change": "all pairs, less those at the first pool",
}  # fmt: skip


def similarity(run: RunFolder) -> dict[str, Any]:
    """Pictures with what they show, the means, and which block is most like each of another network."""
    with _page.undamaged(run.folder / "config.toml"):
        models = [run.short(name) for name in run.settings["models"]]
    facts = run.finished or {}
    with _page.undamaged(run.folder / "finished.json"):
        matched = (
            [] if facts.get("same", True) else [(m["block"], m["best"], f"{m['cka']:.2f}") for m in facts["matches"]]
        )
    return {
        "models": models, "data": run.setting("data"), "n": facts.get("n"), "split": run.setting("split"),
        "noise": run.setting("noise"), "means": _means(run), "matches": matched,
        "pictures": [_shown(path) for path in _pictures(run.folder)],
    }  # fmt: skip


def _pictures(folder: Path) -> list[Path]:
    """The figures that are there, those of the control last."""
    names = [f"{name}-{kind}.png" for name in ("cka", UNTRAINED) for kind in KINDS]
    return [folder / name for name in names if (folder / name).exists()]


def _shown(path: Path) -> tuple[dict[str, Any], str]:
    control = ", of the same networks untrained" if path.name.startswith(UNTRAINED) else ""
    return _page.picture(path), KINDS[path.stem.rpartition("-")[2]] + control


def _means(run: RunFolder) -> list[dict[str, Any]]:
    """Its scores as text."""
    found = []
    with _page.undamaged(run.folder / "results.jsonl"):
        for score in run.scores:
            about = score.about
            steps = [number_text(t) if t is not None else "clean" for t in about["steps"]]
            ends = f"{score.low:.2f} to {score.high:.2f}" if score.low is not None and score.high is not None else ""
            found.append({
                "of": NAMES.get(score.name, score.name), "t": " × ".join(steps), "pool": about["pool"],
                "value": f"{score.value:z.2f}", "interval": ends, "control": bool(about["control"]),
            })  # fmt: skip
    return found
