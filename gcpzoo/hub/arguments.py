"""Checks of what a publication is told, made before anything is sent."""

from __future__ import annotations

import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from gcpzoo.errors import ZooError, is_control, short

WRONG_REF = re.compile(r"[\s~^:?*\[\\]|\.\.|//|@\{|^[-/.]|/\.|[/.]$|\.lock(/|$)|^@?$")
LICENCE = re.compile(r"[A-Za-z0-9][\w.+-]*|none stated|other \(.+\)")


def check_repo_id(field: str, name: str) -> None:
    """Refuse what cannot be the id of a repository on the Hub.

    >>> check_repo_id("base_model", "my model")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: base_model must be the id of a repository on the Hub, got 'my model': ...
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ZooError(f"{field} must be the id of a repository on the Hub, got {name!r}: {short(error)}") from None


def check_ref(field: str, name: str) -> None:
    """Refuse what git does not take as the name of a branch or tag, by the rules of ``git check-ref-format``.

    >>> check_ref("tag", "v1.0")
    >>> check_ref("tag", "version 1")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: tag must be a name that git takes, such as v1.0, got 'version 1'
    """
    if not isinstance(name, str) or WRONG_REF.search(name) or any(map(is_control, name)):
        raise ZooError(f"{field} must be a name that git takes, such as v1.0, got {name!r}")


def check_licence(licence: str) -> None:
    """Refuse what is neither an identifier nor the words of another licence.

    >>> check_licence("Apache-2.0")
    >>> check_licence("other (non-commercial research)")
    >>> check_licence("do what you like")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: licence must be an SPDX identifier such as Apache-2.0, 'none stated' or 'other (…)', got ...
    """
    if not isinstance(licence, str) or not LICENCE.fullmatch(licence) or any(map(is_control, licence)):
        raise ZooError(
            f"licence must be an SPDX identifier such as Apache-2.0, 'none stated' or 'other (…)', got {licence!r}"
        )
