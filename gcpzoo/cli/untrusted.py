"""What config files may import and hold: jsonargparse's own policy, in force while a trainer's command runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from gcpzoo.errors import ZooError
from gcpzoo.limits import load_yaml

IMPORTED = ("gcpzoo", "lightning", "torch", "torchmetrics", "torchvision")
"""Packages whose classes a config may name."""
REFUSED = ("torch.hub", "torch.serialization", "torch.package", "torch.ops", "torch.utils.cpp_extension")
"""Parts of them that load code or pickles."""
OPTION = "--allow-import"


def allowed_packages(argv: Sequence[str]) -> list[str]:
    """Read the packages of ``--allow-import`` from a command line; no config file can give them.

    Raises:
        ZooError: if one is not the name of a package.

    >>> allowed_packages(["fit", "--allow-import", "mine", "--allow-import=yours.data"])
    ['mine', 'yours.data']
    """
    given = [value for flag, value in pairwise(argv) if flag == OPTION]
    given += [a.removeprefix(f"{OPTION}=") for a in argv if a.startswith(f"{OPTION}=")]
    for name in given:
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise ZooError(f"{OPTION} must be the name of a package, such as mypackage, got {name!r}")
    return given


@contextmanager
def untrusted_configs(packages: Sequence[str] = ()) -> Iterator[None]:
    """Let configs and options name classes of :data:`IMPORTED` and of ``packages`` alone, and keep to the limits.

    A class is refused before its module is imported, also where it is nested, comes from a file that an option names,
    or hides behind a module of an allowed package (``torch.os.system``).

    >>> from gcpzoo.cli.parser import Parser
    >>> with untrusted_configs():
    ...     parser = Parser()
    ...     parser.add_argument("--call", type=type)
    ...     parser.parse_args(["--call", "antigravity.Fly"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: 'antigravity.Fly' is not imported: ... add --allow-import antigravity ...
    """
    former = get_loader("yaml")

    def load(text: str) -> Any:
        load_yaml(text, "a config")
        return former(text)

    set_parsing_settings(
        import_path_denylist=["*", *REFUSED],
        import_path_allowlist=[*IMPORTED, *packages],
        instantiate_subclass_spec_in_any=False,
        config_read_mode_fsspec_enabled=False,  # no config is fetched from the network
    )
    set_loader("yaml", load, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", former, (yaml.YAMLError,))
        if packages:
            set_parsing_settings(import_path_denylist=list(packages))


def explain_refusal(path: str) -> str:
    """Say what a config may import, and how to allow more.

    >>> explain_refusal("mine.data.Birds")
    "'mine.data.Birds' is not imported: ..., torchmetrics and torchvision; add --allow-import mine if you trust it"
    """
    *first, last = IMPORTED
    package = path.split(".")[0]
    allow = path if package in IMPORTED else package  # REFUSED is allowed by its full name alone
    return (
        f"{path!r} is not imported: configs may name classes of {', '.join(first)} and {last}; "
        f"add {OPTION} {allow} if you trust it"
    )
