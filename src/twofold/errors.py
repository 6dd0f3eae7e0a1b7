"""The errors of the project, one small tree.

    TwofoldError                 ours: exit code 1
    └── UserError                the user can mend it: one line, exit code 2
        ├── UnknownName          a verb, flag, data set, model, head ... that does not exist
        ├── BadSetting           a known setting with a value that is not allowed
        ├── BadData              images, labels or folders that cannot be used
        ├── BadModel             weights or a configuration that cannot be read
        ├── BadStore             a store that is stale, damaged or lacks what was asked for
        ├── BadRun               a run folder that is of other settings, busy, unfinished or none
        ├── SealedSplit          a split that this step must not open
        ├── NotFitted            a head that was asked before it learned
        └── Diverged             training that stopped being finite

Every message of a UserError says four things: what, where, what is allowed, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TwofoldError(Exception):
    """Base of all errors raised on purpose; a bare one is our fault."""

    exit_code = 1


class UserError(TwofoldError):
    """Something that the user can mend; shown as one line without a traceback."""

    exit_code = 2


class UnknownName(UserError):
    """A name that nothing answers to."""


class BadSetting(UserError):
    """A value that a setting does not allow."""


class BadData(UserError):
    """Images, labels or folders that cannot be used."""


class BadModel(UserError):
    """Weights or a configuration that cannot be read."""


class BadStore(UserError):
    """A store that is stale, damaged or lacks what was asked for."""


class BadRun(UserError):
    """A run folder that cannot be used as asked."""


class SealedSplit(UserError):
    """A split that this step must not open."""


class NotFitted(UserError):
    """A head that was asked for scores before it was fitted."""


class Diverged(UserError):
    """Training whose loss is no longer a finite number."""


def unknown(kind: str, name: str, allowed: Iterable[str], next_step: str = "") -> UnknownName:
    """An `UnknownName` that lists what exists, the near names first."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listed = f" There is: {', '.join(names)}." if names else ""
    return UnknownName(f"No {kind} {name!r}.{hint}{listed}{' ' + next_step if next_step else ''}")
