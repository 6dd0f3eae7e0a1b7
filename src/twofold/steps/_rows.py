"""What a probe reads: settings that say where, and the rows of its table: the model and its controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from twofold import files
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.heads.base import Head
from twofold.records import Cell, Number, Tap, number_text
from twofold.settings import setting
from twofold.steps import _cells, _fill, _memory, _views

# What must stand in the choice.json of a run of select.
CHOICE = {"model": str, "backbone": str, "data": str, "cell": str, "block": int, "t": Number | None, "pool": int}
SELECT_AGAIN = "Delete its folder and run `twofold select` again."
CONTROLS = ("pixels", "untrained", "none")
NEIGHBOUR = 1.5  # of neighbouring steps that vote, the ratio of one's sigma to the next


@dataclass(frozen=True)
class Place(_fill.Reading):
    """Settings of what reads features at a chosen place, beside controls."""

    model: str = setting(help=backbones.MODEL_HELP)
    data: str = setting(help="data set to classify")
    _: KW_ONLY
    choice: Path | None = setting(None, help="run of twofold select whose block, t and pool are taken")
    other_data: bool = setting(False, help="take a --choice that was made on another data set than --data")
    block: tuple[str, ...] | None = setting(
        None, help="block number or name, instead of --choice; several: rows are concatenated, difformer joins the maps"
    )
    t: tuple[float, ...] | None = setting(
        None, help="noise step in the model's own unit, with --block; several: joined as several blocks are"
    )
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratio instead of --t")
    pool: int | None = setting(
        None,
        help="side of the grid that maps are averaged to, with --block; 0 keeps maps, for heads that read "
        "them; none: what the head reads",
        least=0,
        most=8192,
    )
    vote: int = setting(
        1,
        help="noise steps that vote, each with a head of its own, by the mean of their class probabilities: those of "
        f"--t where so many are given, else the step and its neighbours, {NEIGHBOUR} apart in sigma",
        least=1,
        most=99,
    )
    draws_as: str = setting(
        "average",
        help="what becomes of the features of several --draws; concatenate widens the rows",
        choices=("average", "concatenate"),
    )
    views: tuple[str, ...] | None = setting(None, help=_views.HELP, none="none")
    controls: tuple[str, ...] = setting(
        ("pixels", "untrained"), help="rows to compare with; none for none", choices=CONTROLS, alone="none"
    )
    memory: float | None = _memory.setting()


@dataclass(frozen=True)
class Row:
    """One line of the table to be.

    Attributes:
        name: what it is called.
        backbone: what is read.
        voters: the cells that each voting head reads; one head alone reads all there are.
        control: whether it is there to be compared with.
    """

    name: str
    backbone: Backbone
    voters: tuple[tuple[Cell, ...], ...]
    control: bool

    @property
    def cells(self) -> list[Cell]:
        """All cells, each once."""
        return list(dict.fromkeys(cell for voter in self.voters for cell in voter))

    @property
    def passes(self) -> int:
        """Forward passes an image: one a noise step."""
        return len({cell.tap.t for cell in self.cells})

    @property
    def about(self) -> dict[str, Any]:
        """Where it is read, as a score says it; `t` and `sigma` of several steps are lists under `steps`, `sigmas`."""
        steps = list(dict.fromkeys(cell.tap.t for cell in self.cells))
        sigmas = [self.backbone.sigma(t) for t in steps]
        names = [self.backbone.block(b).name for b in dict.fromkeys(cell.tap.block for cell in self.cells)]
        deepest = max(cell.tap.block for cell in self.cells)
        one = len(steps) == 1
        told = {
            "row": self.name, "control": self.control, "model": self.backbone.name,
            "cell": "+".join(map(str, self.cells)), "block": ", ".join(names), "t": steps[0] if one else None,
            "sigma": sigmas[0] if one else None, "pool": self.cells[0].pool, "passes": self.passes,
            "parameters": self.backbone.parameters,
            "operations": self.passes * self.backbone.cost(deepest).operations,
        }  # fmt: skip
        several = {} if one else {"steps": steps, "sigmas": sigmas, "vote": len(self.voters)}
        return told | several


def place_text(about: dict[str, Any]) -> str:
    """Where a score was read, in words."""
    if "noises" in about:
        return f"{about['block']}, {about['noises']} noise samples"
    return f"{about['block']} {noise_text(about)} pool {about['pool'] or 'none'}"


def noise_text(about: dict[str, Any]) -> str:
    """The noise steps of a score in words."""
    if "steps" in about:
        listed = ", ".join(number_text(t) for t in about["steps"])
        return f"t={listed} {'voting' if about['vote'] > 1 else 'joined'}"
    return "clean" if about["t"] is None else f"t={number_text(about['t'])}"


def rows(place: Place, dataset: Dataset, reads: Head) -> Iterator[Row]:
    """The model, then its controls: raw pixels, and the same network untrained at the same taps.

    Args:
        place: where, as the user says.
        dataset: whose images.
        reads: a head that reads what all of them read.
    """
    maps = reads.maps or reads.several
    backbone = place.load(place.model)
    voters = _voters(place, backbone, maps)
    check_reads(reads, len(voters[0]), " for each step that votes" if len(voters) > 1 else "")
    yield Row(place.model, backbone, voters, control=False)
    name = backbones.parse(place.model)
    # Raw pixels are one map, where a head that reads several has nothing to join.
    if "pixels" in place.controls and name.scheme != "pixels" and not reads.several:
        size = dataset.image_size or backbone.image_size
        pixels = replace(place, label=None).load(f"pixels:{size}")
        yield Row("pixels", pixels, ((Cell(Tap(1, None), 0 if maps else size),),), control=True)
    if "untrained" in place.controls and name.scheme != "pixels" and not name.untrained:
        yield Row("untrained", place.load(str(replace(name, untrained=True))), voters, control=True)


def check_reads(reads: Head, count: int, each: str = "") -> None:
    """Refuse one map for a head that joins several, and several for one that reads one."""
    name = type(reads).__name__
    if reads.several and count < 2:
        raise BadSetting(
            f"The head {name} joins several maps, and there is one{each}: give several --block, --t or both, for "
            "instance --block 19,24,30 --t 90,150,300. The head attention reads one map."
        )
    if reads.maps and count > 1:
        raise BadSetting(
            f"The head {name} reads one map, not {count}{each}. Give one --block and --t; the head difformer joins "
            "several maps, and heads that read pooled rows concatenate them."
        )


def _voters(place: Place, backbone: Backbone, maps: bool) -> tuple[tuple[Cell, ...], ...]:
    """The cells of every head that votes: given, or as `twofold select` chose; heads that read maps leave pool out."""
    if (place.choice is None) == (place.block is None):
        raise BadSetting("probe needs a place to read: --choice RUN of twofold select, or --block with --t and --pool.")
    if place.choice is not None:
        if any(given is not None for given in (place.t, place.sigma, place.pool)):
            raise BadSetting("--choice says where to read, so --t, --sigma and --pool mean nothing. Leave them out.")
        chosen = _chosen(place.choice, place, backbone)
        cells = [replace(chosen, pool=0) if maps else chosen]
    else:
        cells = _given(place, backbone, maps)
    if place.vote == 1:
        return (tuple(cells),)
    steps = _voting(place.vote, list(dict.fromkeys(cell.tap.t for cell in cells)), backbone)
    taps = list(dict.fromkeys((cell.tap.block, cell.pool) for cell in cells))
    return tuple(tuple(Cell(Tap(block, t), pool) for block, pool in taps) for t in steps)


def _given(place: Place, backbone: Backbone, maps: bool) -> list[Cell]:
    """Every block at every step."""
    assert place.block is not None
    if "all" in place.block:
        raise BadSetting("probe --block must be one block or several, not all. `twofold select` finds the best of all.")
    if isinstance(backbone, DiffusionBackbone) and place.t is None and place.sigma is None:
        raise BadSetting(f"{place.model} is a diffusion model: give --t or --sigma with --block.")
    steps = _cells.steps(backbone, place.t, place.sigma)
    return _cells.asked(backbone, place.block, steps, (0 if maps else place.pool or 1,))


def _voting(number: int, steps: list[float | None], backbone: Backbone) -> list[float | None]:
    """The steps that vote, ascending: as many as were given, or one and its neighbours in the logarithm of sigma."""
    if len(steps) == number:
        return steps
    centre = backbone.sigma(steps[0])
    if len(steps) > 1 or centre is None:
        told = "the model has no noise steps" if centre is None else f"--t gives {len(steps)}"
        raise BadSetting(f"--vote {number}: {told}. Give {number} steps, or one whose neighbours vote, or no --vote.")
    # Nearest first; beyond the ends of a ladder, and where its steps are far apart, the same step comes again.
    tried = [steps[0], *(backbone.step(centre * NEIGHBOUR**k) for far in range(1, 8 * number) for k in (-far, far))]
    found = list(dict.fromkeys(tried))[:number]
    if len(found) < number:
        raise BadSetting(f"--vote {number}: {backbone.name} has only {len(found)} steps there. Give --vote fewer.")
    return sorted(found, key=lambda t: t or 0)


def _chosen(folder: Path, place: Place, backbone: Backbone) -> Cell:
    """The cell that `twofold select` chose for this model and data."""
    path = folder / "choice.json"
    if not path.exists():
        raise BadRun(f"{folder} holds no choice.json: it is not a finished run of `twofold select`. Run that first.")
    choice = files.read_json(path, CHOICE, advice=SELECT_AGAIN)
    # The same network may be named in several ways, and another may have come to stand behind the same name.
    if choice["backbone"] != backbone.identity:
        raise BadRun(
            f"{path} chose for the model {choice['model']}, not for {place.model}. Give the choice of this model."
        )
    if choice["data"] != place.data and not place.other_data:
        raise BadRun(
            f"{path} chose for the data {choice['data']}, not for {place.data}. Give the choice of this data, or "
            "--other-data to read where the other data set is read best."
        )
    cell = Cell(Tap(choice["block"], choice["t"]), choice["pool"])
    if str(cell) != choice["cell"]:
        raise BadRun(f"{path} is damaged: it says both {cell} and {choice['cell']}. {SELECT_AGAIN}")
    try:
        backbone.check_step(cell.tap.t)
        if not 1 <= cell.pool <= backbone.block(cell.tap.block).size:
            raise BadSetting(f"pool {cell.pool} does not fit the block's map.")
    except BadSetting as error:
        raise BadRun(f"{path} is damaged: {error} {SELECT_AGAIN}") from error
    return cell
