"""Changes to a checkpoint's folder, as a careless or hostile publisher would make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def edit(folder: Path, **changes: Any) -> None:
    """Change ``config.json``: ``model`` is updated, every other key replaced."""
    config = json.loads((folder / "config.json").read_text())
    config["model"].update(changes.pop("model", {}))
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))
