"""The site: these pages and the README by Sphinx, with every verb's settings and the public Python names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from twofold import cli

project = "Twofold"
copyright = "the authors of Twofold, Apache-2.0"
version = release = version_of("twofold")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # `--flag` is two dashes
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
html_theme = "furo"
html_title = f"Twofold {version}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#7b2a73", "color-brand-content": "#7b2a73"},
    "dark_css_variables": {"color-brand-primary": "#f1a0c0", "color-brand-content": "#f1a0c0"},
}


class Commands(SphinxDirective):
    """A section for every verb: what it does, and a table of its settings, from the code that reads them."""

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        return list(self.parse_text_to_nodes("\n".join(_commands()), allow_section_headings=True))


def _commands() -> Iterator[str]:
    for name, parser in cli.parsers().items():
        yield f"## {name}\n\n{parser.description}\n\n| setting | |\n|---|---|"
        actions = [action for action in parser._actions if action.dest != "help"]
        yield from (f"| {_spelled(action)} | {_cell(action.help or '')} |" for action in actions)
        yield ""


def _spelled(action: argparse.Action) -> str:
    """How a setting is written, as code."""
    value = "" if action.nargs == 0 else f" {action.metavar}"
    return f"`{_cell(action.option_strings[0] + value if action.option_strings else str(action.metavar))}`"


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|").replace("<", "\\<")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
