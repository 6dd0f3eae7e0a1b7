"""Look after a feature store: `ls` its columns, `info` on what it is, `verify` every chunk, `gc` what nobody reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from twofold import results, upkeep
from twofold import store as stores
from twofold.errors import BadSetting, BadStore
from twofold.records import Outcome, number_text
from twofold.settings import Settings, setting
from twofold.store import Store

ACTIONS = ("ls", "info", "verify", "gc")


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold store`."""

    action: str = setting(help="ls, info, verify or gc", positional=True, choices=ACTIONS)
    where: str = setting(help="folder or address of the store", positional=True)
    unfinished: bool = setting(False, help="gc: also remove columns of features that lack chunks")


def run(config: Config) -> Outcome:
    """Do one of the four; `verify` ends with exit code 2 where something is missing or damaged."""
    if config.unfinished and config.action != "gc":
        raise BadSetting(f"--unfinished says what gc removes; {config.action} removes nothing. Leave it out.")
    opened = stores.load(config.where)
    with opened.arrays.undamaged():
        return {"ls": _list, "info": _tell, "verify": _verify, "gc": _clean}[config.action](opened, config)


def _list(opened: Store, config: Config) -> Outcome:
    """One line a column."""
    found, damaged = _columns(opened)
    rows = [("column", "block", "t", "sigma", "pool", "shape", "MB", "chunks")]
    for c in found:
        t, sigma = (c.about.get(name) for name in ("t", "sigma"))
        noise = ("", "") if c.cell is None else ("clean", "") if t is None else (number_text(t), f"{sigma:.3g}")
        where = ("", *noise, "") if c.cell is None else (str(c.about["name"]), *noise, str(c.cell.pool))
        there = f"{c.chunks - len(c.lacking)} of {c.chunks}"
        shape = " x ".join(map(str, c.shape))
        rows.append((c.path, *where, f"{c.dtype} {shape}", f"{c.bytes / 1e6:,.2f}", there))
    told = [results.table(rows), *(f"{path}: damaged" for path in damaged)]
    columns = [{**asdict(c), "cell": c.cell and str(c.cell), "bytes": c.bytes} for c in found]
    return Outcome({"store": str(opened.place), "columns": columns, "damaged": damaged}, "\n".join(told))


def _tell(opened: Store, config: Config) -> Outcome:
    """The key and the content in words."""
    found, damaged = _columns(opened)
    cells = [c for c in found if c.cell is not None]
    begun = [c.path for c in cells if c.lacking]
    left = upkeep.leftovers(opened)
    rows = {c.path.partition("/")[0]: c.shape[0] for c in found}
    about, key = opened.about, opened.key
    size = sum(c.bytes for c in found)
    facts = {
        "store": str(opened.place), "key": key, "about": about, "rows": rows, "columns": len(cells),
        "bytes": size, "unfinished": begun, "damaged": damaged, "leftovers": left,
    }  # fmt: skip
    blocks = sorted({(c.about["block"], c.about["name"]) for c in cells})
    steps = sorted({(c.about["t"], c.about["sigma"]) for c in cells if c.about["t"] is not None})
    lines: dict[str, Any] = {
        "model": about["model"],
        "weights": key["backbone"],
        "images": f"{about['data']}, {len(about['classes'])} classes (fingerprint {key['data']})",
        "rows": ", ".join(f"{n:,} {split}" for split, n in rows.items()) or "none",
        "blocks": ", ".join(f"{b} {name}" for b, name in blocks) or "none",
        "noise": ", ".join(f"t={number_text(t)} (σ={s:.3g})" for t, s in steps) or "none",
        "pools": ", ".join(str(p) for p in sorted({c.about["pool"] for c in cells})) or "none",
        "noise samples": f"{key['draws']} an image, seed {key['seed']}",
        "class told": "none" if key["label"] is None else key["label"],
        "preprocessing": "; ".join(f"{name} {value}" for name, value in dict(key["preprocessing"]).items()),
        "numbers": f"computed in {key['precision']}, kept in {key['dtype']}, layout version {key['version']}",
        "size": f"{len(cells)} columns, {size / 1e6:,.1f} MB",
        "unfinished": f"{len(begun)} columns; the same `twofold extract` goes on with them" if begun else "nothing",
        "damaged": ", ".join(damaged) or "nothing seen; `twofold store verify` reads every chunk",
        "left over": f"{len(left)} files; `twofold store gc` removes them" if left else "nothing",
    }
    return Outcome(facts, "\n".join(f"{name:{max(map(len, lines))}}  {value}" for name, value in lines.items()))


def _verify(opened: Store, config: Config) -> Outcome:
    """One line a column, then the checksum of the whole."""
    found = list(upkeep.verify(opened))
    whole = upkeep.checksum(opened, found)
    bad = [v for v in found if v.state != upkeep.WHOLE]
    table = results.table([("column", "", "checksum"), *((v.path, v.state, v.checksum or v.why) for v in found)])
    unsure = [v.path for v in found if v.state == upkeep.WHOLE and v.why]
    told = [table, *(f"{path}: {upkeep.WHOLE}, but a flipped bit would not be seen" for path in unsure)]
    if whole:
        told.append(f"{opened.place} is whole: {len(found)} columns, checksum {whole}.")
    elif not bad:
        told.append(f"{opened.place} is empty.")
    facts = {"store": str(opened.place), "whole": not bad, "checksum": whole, "columns": [asdict(v) for v in found]}
    states = ", ".join(f"{sum(v.state == s for v in bad)} {s}" for s in (upkeep.MISSING, upkeep.DAMAGED))
    problem = (
        f"{opened.place} is not whole: of {len(found)} columns {states}. Delete the folders of damaged columns; "
        "the same `twofold extract` then fills what is missing."
    )
    return Outcome(facts, "\n".join(told), problem if bad else "")


def _clean(opened: Store, config: Config) -> Outcome:
    """Remove leftovers, and say what was removed."""
    removed = upkeep.clean(opened, unfinished=config.unfinished)
    facts = {"store": str(opened.place), "removed": removed}
    lines = [*(f"removed {name}" for name in removed), f"{opened.place}: {len(removed)} leftovers removed."]
    return Outcome(facts, "\n".join(lines))


def _columns(opened: Store) -> tuple[list[upkeep.Column], list[str]]:
    """What can be described, and the paths of what cannot."""
    found, damaged = [], []
    for path in upkeep.paths(opened):
        try:
            found.append(upkeep.column(opened, path))
        except BadStore:
            damaged.append(path)
    return found, damaged
