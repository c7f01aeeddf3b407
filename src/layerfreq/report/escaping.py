"""Names from runs as text of a page, and nothing more than text."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def plain(name: str) -> str:
    """Return a name without what no page can hold: halves of surrogate pairs and control characters."""
    kept = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if c < " " or "\x7f" <= c < "\xa0" else c for c in kept)


def text(name: str) -> str:
    """Return a name as HTML text, which may also stand in a quoted attribute."""
    return escape(plain(name), quote=True)


def for_script(value: Any) -> str:
    """Return JSON that ends no script element and starts none."""
    return json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
