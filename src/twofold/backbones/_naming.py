"""What a MODEL string names: its parts, the file of the room that reads it, and whether its file is there."""

from __future__ import annotations

from pathlib import Path

from twofold import registry
from twofold.backbones import _folders
from twofold.errors import BadModel, BadSetting, unknown
from twofold.records import ModelName

ARGUMENT_FREE = ("pixels", "inception")
WHAT_FOLLOWS = {"adm": "FILE.pt", "timm": "NAME[@FILE]", "torchvision": "NAME[@FILE]"}


def parse(model: str) -> ModelName:
    """Take a MODEL string apart; the bare path of a run is `run:PATH`."""
    named, mark, control = model.partition("?")
    if mark and control != "untrained":
        raise unknown("control", control, ["untrained"], "Write MODEL?untrained.")
    scheme, colon, argument = named.partition(":")
    if not colon and (Path(named).is_dir() if named else False):
        # A folder that is called like a scheme is meant as a folder.
        scheme, argument = "run", named
    if not colon and scheme not in schemes():
        if "/" not in named:
            raise unknown("model", named, schemes(), "Give one of these with its folder, or the folder of a run.")
        scheme, argument = "run", named
    if scheme not in schemes():
        raise unknown("model", scheme, schemes())
    if not argument and scheme not in ARGUMENT_FREE:
        raise BadSetting(f"{model!r} names no {scheme}. Write {scheme}:{WHAT_FOLLOWS.get(scheme, 'DIR')}.")
    return ModelName(scheme, argument, bool(mark))


def schemes() -> dict[str, list[str]]:
    """Every scheme and the members of the room that read it."""
    found: dict[str, list[str]] = {}
    for member, names in registry.declared("backbones", "SCHEMES").items():
        for name in names:
            found.setdefault(name, []).append(member)
    return found


def named(model: str) -> tuple[ModelName, str]:
    """The parts of a MODEL string and the file of the room that reads it; its file of weights, if any, is there."""
    name = parse(model)
    reader = _member(name)
    _check_file(name, reader)
    return name, reader


def _member(name: ModelName) -> str:
    """The file of the room that reads this model; pipelines are told apart by their model_index.json."""
    members = schemes()[name.scheme]
    pipelines = registry.declared("backbones", "PIPELINES")
    if not any(m in pipelines for m in members):
        return members[0]
    found = _folders.pipeline_class(_folders.local(name))
    for member in members:
        if found in pipelines.get(member, ()):
            return member
    supported = [p for m in members for p in pipelines.get(m, ())]
    raise unknown(f"reader for the pipeline class of {name}:", found, supported)


def _check_file(name: ModelName, member: str) -> None:
    """Look for the file of weights before anything that takes seconds to import."""
    wanted = registry.declared("backbones", "FILE").get(member)
    given = name.argument
    if wanted is not None and wanted.endswith("@FILE"):
        given = given.partition("@")[2]
    path = Path(given)
    if wanted is None or not given or path.is_file():
        return
    what = "is a folder" if path.is_dir() else "does not exist"
    raise BadModel(f"{name}: the file {path} {what}. Give {wanted}.")
