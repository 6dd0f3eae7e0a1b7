"""The command line: reads arguments, calls one step or workflow, prints.

Flags come from the verb's `Config`; nothing but the verb that was asked for is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from twofold import _telling, registry, runs, settings
from twofold.errors import BadSetting, TwofoldError, UserError, unknown
from twofold.records import Outcome

# In the order in which a newcomer meets them.
ORDER = (
    "demo", "data", "pretrain", "sample", "edit", "fid", "blocks", "convert", "extract", "store",
    "select", "probe", "transfer", "finetune", "predict", "compare", "show", "reproduce", "report",
)  # fmt: skip

# A verb whose next word names a member of a room.
GROUPS = {"rival": "rivals"}

SHARED = {
    "--config": "TOML file with settings; flags override it",
    "--json": "print the result as one JSON line",
    "--quiet": "no progress and no log on stderr",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console command; ends the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; gives 0 when done, 2 where the user can mend it, 1 for our fault, 130 when interrupted."""
    try:
        return _run(arguments)
    except TwofoldError as error:
        print(f"twofold: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("twofold: interrupted. Run the same command again to go on where it stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        return _disk(error)
    except Exception as error:
        return _out_of_memory(error)


def verbs() -> dict[str, str]:
    """Every verb and the room it lives in."""
    found = {name: room for room in ("steps", "workflows") for name in registry.names(room)}
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else 99, item[0])))


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every verb, with the members of those that have some, by what is typed; for the site."""
    typed = [*verbs(), *(f"{verb} {name}" for verb, room in GROUPS.items() for name in registry.names(room))]
    return {name: _parser(*_asked(name.split(" "))[:2]) for name in typed}


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import importlib.metadata

        print(importlib.metadata.version("twofold"))
        return 0
    if arguments[0] in GROUPS and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(_group(arguments[0]))
        return 0 if arguments[1:] else 2
    verb, module, rest = _asked(arguments)
    given = vars(_parser(verb, module).parse_intermixed_args(rest))
    values = {**_from_file(given.pop("config")), **{n: v for n, v in given.items() if v not in (None, [])}}
    shown_as_json, quiet = values.pop("json", False), values.pop("quiet", False)
    config = settings.build(module.Config, values, verb)
    # Of processes that were started together, one speaks for all; what goes wrong in another it says itself.
    _telling.to_stderr(quiet or not runs.is_main())
    outcome: Outcome = module.run(config)
    if runs.is_main():
        print(json.dumps(outcome.facts) if shown_as_json else outcome.text)
        if outcome.problem:
            raise UserError(outcome.problem)
    return 0


def _asked(arguments: list[str]) -> tuple[str, ModuleType, list[str]]:
    """The verb, with the member's name where it has members, its module, and its settings."""
    verb, rest = arguments[0], arguments[1:]
    if verb in GROUPS:
        return f"{verb} {rest[0]}", registry.find(GROUPS[verb], rest[0]), rest[1:]
    if verb not in verbs():
        raise unknown("verb", verb, [*verbs(), *GROUPS], "`twofold --help` explains them.")
    return verb, registry.find(verbs()[verb], verb), rest


def _from_file(name: str | None) -> dict[str, Any]:
    """Settings of `--config FILE`; a file may also say how to tell the result, `json` and `quiet`."""
    if name is None:
        return {}
    if not name:
        raise BadSetting("--config '' names no file. Give a TOML file, or leave --config out.")
    values = settings.read_file(Path(name))
    for word in ("json", "quiet"):
        if not isinstance(values.get(word, False), bool):
            raise BadSetting(f"--config {name}: {word} must be true or false, not {values[word]!r}.")
    return values


def _overview() -> str:
    """What `twofold --help` prints."""
    found = {verb: registry.summary(room, verb) for verb, room in verbs().items()}
    lines = _lines({**found, **{group: registry.summary(room, "__init__") for group, room in GROUPS.items()}})
    return "\n".join(
        [
            "Diffusion models as unified image representations: pre-train once, then generate and classify.",
            "",
            "usage: twofold <verb> [settings]",
            "",
            *lines,
            "",
            "`twofold <verb> --help` explains the settings of one verb; `twofold demo` does it all in some minutes.",
        ]
    )


def _group(verb: str) -> str:
    """What `twofold VERB --help` prints of a verb with members."""
    room = GROUPS[verb]
    lines = _lines({name: registry.summary(room, name) for name in registry.names(room)})
    usage = f"usage: twofold {verb} <{'|'.join(registry.names(room))}> [settings]"
    return "\n".join([registry.summary(room, "__init__"), "", usage, "", *lines])


def _lines(told: dict[str, str]) -> list[str]:
    """Names beside what they are."""
    width = max(map(len, told))
    return [f"  {name:{width}}  {about.rstrip('.')}" for name, about in told.items()]


class _Parser(argparse.ArgumentParser):
    """Errors of argparse in the words and with the exit code of all others."""

    def error(self, message: str) -> NoReturn:
        strange = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if message.startswith("unrecognized arguments") and strange.startswith("-"):
            flags = [option for action in self._actions for option in action.option_strings]
            raise unknown(f"flag of {self.prog}:", strange.partition("=")[0], flags)
        raise BadSetting(f"{self.prog}: {message}. `{self.prog} --help` explains every setting.")


def _parser(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"twofold {verb}", description=module.__doc__, allow_abbrev=False, argument_default=None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    kinds = typing.get_type_hints(module.Config)
    for field in settings.fields(module.Config):
        about = field.metadata
        many = typing.get_origin(kinds[field.name]) is tuple
        if about["positional"]:
            parser.add_argument(field.name, metavar=field.name.upper(), nargs="*" if many else "?", help=_help(field))
        elif kinds[field.name] is bool:
            parser.add_argument(_flag(field.name), action=argparse.BooleanOptionalAction, help=_help(field))
        else:
            parser.add_argument(_flag(field.name), metavar=_metavar(field), help=_help(field))
    for flag, told in SHARED.items():
        if flag == "--config":
            parser.add_argument(flag, metavar="FILE", help=told)
        else:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=told)
    return parser


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata["choices"]
    return "|".join(choices) if choices and len(choices) < 5 else field.name.upper()


def _help(field: dataclasses.Field[Any]) -> str:
    """The setting's sentence with its default."""
    told = str(field.metadata["help"]).replace("%", "%%")
    if field.default is dataclasses.MISSING:
        return f"{told} (needed)"
    if field.metadata["none"]:
        return f"{told} (default: {field.metadata['none']})"
    if field.default is None or isinstance(field.default, bool):
        return told
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return f"{told} (default: {default})"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _disk(error: OSError) -> int:
    """What the system refused, in one line."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "Free some space and run the same command again; it goes on where it stopped."
    else:
        advice = "Check the path and its permissions, then run the same command again."
    print(f"twofold: {error.strerror or error}{where}. {advice}", file=sys.stderr)
    return 2


def _out_of_memory(error: Exception) -> int:
    """Memory is the user's to mend with a smaller batch; anything else is our fault and shows its traceback."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        print(
            "twofold: out of memory. Give a smaller --batch, or run where there is more memory.",
            file=sys.stderr,
        )
        return 2
    traceback.print_exc()
    print(
        "twofold: this is a fault of twofold, not yours. Please report it with the lines above.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    main()
