"""Names from runs as text of a page, and nothing more than text; tables."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def plain(name: str) -> str:
    """Return a name without halves of surrogate pairs and control characters, which a page cannot hold."""
    kept = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if c < " " or "\x7f" <= c < "\xa0" else c for c in kept)


def text(name: str) -> str:
    """Return a name as HTML text, which may also stand in a quoted attribute."""
    return escape(plain(name), quote=True)


def table(kind: str, label: str, heads: str, rows: str) -> str:
    """Return a table as HTML, in a box of its own that scrolls on narrow screens.

    Args:
        kind: Class of the table in the style sheet.
        label: What it shows, for screen readers.
        heads: Cells of the first row, as HTML.
        rows: The other rows, as HTML.
    """
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="{kind}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def for_script(value: Any) -> str:
    """Return JSON that neither ends nor starts a script element."""
    return json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
