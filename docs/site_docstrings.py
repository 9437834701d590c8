"""Docstrings for the site's Python reference: the roles and formulas that docs/heads.md is written with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from make_heads import roles


class Roles(griffe.Extension):
    """Turns what our docstrings have of reStructuredText into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = roles(obj.docstring.value).replace("$`", "$").replace("`$", "$")
            obj.docstring.value = text.replace("```python\n>>>", "```pycon\n>>>")
