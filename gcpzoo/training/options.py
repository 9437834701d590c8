"""The options of a training as its ``config.yaml`` has them: by dotted names, and which of them change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIG = "config.yaml"
"""The file in the folder of a run that holds its options."""
WITHOUT_EFFECT = (
    "config", "ckpt_path", "resume", "output", "checkpoint", "verbose", "data.init_args.workers", "trainer.accelerator",
    "trainer.strategy", "trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "trainer.default_root_dir", "trainer.profiler",
)  # fmt: skip
"""Options, and groups of them, that do not change what a training computes."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Give every value of nested options its dotted name.

    >>> flatten({"model": {"head": "gap", "head_args": {}}, "evaluate": True})
    {'model.head': 'gap', 'model.head_args': {}, 'evaluate': True}
    """
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def is_of(option: str, groups: tuple[str, ...]) -> bool:
    """Say whether a dotted option is one of these, or inside one of them.

    >>> is_of("trainer.logger.save_dir", WITHOUT_EFFECT), is_of("trainer.max_epochs", WITHOUT_EFFECT)
    (True, False)
    """
    return any(option == name or option.startswith(f"{name}.") for name in groups)
