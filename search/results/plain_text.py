"""Text from users and devices as one harmless line of Markdown."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 300  # characters of a name that a text shows


def one_line(text: Any) -> str:
    """Return text as one line that Markdown and tables take as it is, cut to `LONGEST` characters."""
    safe = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    safe = safe if len(safe) <= LONGEST else safe[: LONGEST - 3] + "..."
    return safe.replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def safe_name(text: str) -> str:
    """Return text as a part of a file's name that every system takes, of at most 60 characters; "" if none is left."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60]
