"""The Hub's client under our library's name, with every error as one clear line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import HfApi, constants, is_offline_mode
from huggingface_hub import errors as e

from gcpzoo import __version__
from gcpzoo.errors import ZooError, short
from gcpzoo.hub.records import COMMIT

LIBRARY = "gcpzoo"
LOGIN = "log in with 'hf auth login' or set HF_TOKEN"


def hub_api() -> HfApi:
    """Make a client that honours ``HF_ENDPOINT``, ``HF_TOKEN`` and the caches' variables, and names this library.

    >>> hub_api().library_name
    'gcpzoo'
    """
    return HfApi(library_name=LIBRARY, library_version=__version__)


def no_name_resolution() -> bool:
    """Tell at once, without retries, that the Hub's name cannot be resolved here and no proxy would do it.

    >>> isinstance(no_name_resolution(), bool)
    True
    """
    host = urlsplit(constants.ENDPOINT).hostname
    if not host or is_offline_mode() or getproxies():
        return False
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


def split_revision(spec: str) -> tuple[str, str | None]:
    """Split ``owner/repo[@revision]`` into its two parts.

    >>> split_revision("owner/animals@v1.0")
    ('owner/animals', 'v1.0')
    >>> split_revision("animals")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: expected owner/repo or owner/repo@revision on the Hub, got 'animals'
    """
    repo, at, revision = spec.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or (at and not revision):
        raise ZooError(f"expected owner/repo or owner/repo@revision on the Hub, got {spec!r}")
    return repo, revision or None


def fetch(repo: str, revision: str | None, force: bool = False) -> tuple[Path, Path, str]:
    """Fetch ``config.json`` and ``model.safetensors`` of one commit, from the cache if they are there.

    The first file resolves the revision; the second is asked for by the commit of the first.

    Args:
        repo: ``owner/name``.
        revision: a branch, tag or commit; ``None``: ``main``.
        force: fetch the files even if the cache has them.

    Returns:
        The two cached files, and the commit (40 hex digits). A server that names no commit leaves ``revision``.

    >>> fetch("owner/animals/v1", None)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: 'owner/animals/v1' is not a repository's name: expected owner/repo ...
    """
    api = hub_api()
    cached = not force and no_name_resolution()
    with clear_errors(repo, revision):
        config = _download(api, repo, "config.json", revision, force, cached)
        resolved = config.parent.name
        if not COMMIT.fullmatch(resolved):
            resolved = revision or constants.DEFAULT_REVISION
        weights = _download(api, repo, "model.safetensors", resolved, force, cached)
    return config, weights, resolved


def _download(api: HfApi, repo: str, name: str, revision: str | None, force: bool, cached: bool) -> Path:
    if cached:
        return Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))
    try:
        return Path(api.hf_hub_download(repo, name, revision=revision, force_download=force))
    except e.HTTPError as error:  # on a broken connection the client itself takes the cache in most cases, not in all
        if isinstance(error, e.HfHubHTTPError) or force:
            raise
        return Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))


def search_hub(query: str | None = None, author: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Search the Hub for models that carry this library's name.

    Args:
        query: part of the repository's name.
        author: a user or an organization.
        limit: at most this many.

    Returns:
        For each: ``repo``, ``downloads``, ``likes``, ``updated`` (a date), ``private``.

    >>> from unittest.mock import patch
    >>> with patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
    ...     search_hub("animals")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: the Hub: the cache lacks what is needed, and HF_HUB_OFFLINE is set; ...
    """
    if no_name_resolution():
        raise ZooError(
            "the Hub cannot be reached: its name is not known here; check the network, the proxy or HF_ENDPOINT"
        )
    with clear_errors("the Hub"):
        found = list(hub_api().list_models(filter=LIBRARY, search=query, author=author, limit=limit))
    return [
        {
            "repo": m.id,
            "downloads": m.downloads or 0,
            "likes": m.likes or 0,
            "updated": f"{m.last_modified:%Y-%m-%d}" if m.last_modified else "",
            "private": bool(m.private),
        }
        for m in found
    ]


@contextmanager
def clear_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn whatever the client raises inside into a ``ZooError`` of one line with the remedy.

    >>> with clear_errors("owner/animals"):
    ...     raise e.OfflineModeIsEnabled("offline")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: owner/animals: the cache lacks what is needed, and HF_HUB_OFFLINE is set; unset it, or ...
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:  # the client's errors have no common class
        message = explain(error, repo, revision)
        if message is None:
            raise
        raise ZooError(message) from error


def explain(error: BaseException, repo: str, revision: str | None = None) -> str | None:
    """Explain an error of the Hub's client in one line: what happened and what to do; ``None`` for any other error.

    >>> explain(e.LocalTokenNotFoundError(), "owner/animals")
    "owner/animals: not logged in: run 'hf auth login' or set HF_TOKEN to a token that may write"
    """
    if isinstance(error, e.LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, e.HfHubHTTPError) and cause.response.status_code < 500:
            return explain(cause, repo, revision)
        return _unreachable(repo, offline=isinstance(cause, e.OfflineModeIsEnabled))
    if isinstance(error, (e.OfflineModeIsEnabled, e.RevisionResolutionError)):
        return _unreachable(repo, offline=isinstance(error, e.OfflineModeIsEnabled))
    if isinstance(error, e.HTTPError) and not isinstance(error, e.HfHubHTTPError):
        return _unreachable(repo)
    if isinstance(error, e.HFValidationError):
        return f"{repo!r} is not a repository's name: expected owner/repo ({short(error)})"
    if isinstance(error, e.LocalTokenNotFoundError):
        return f"{repo}: not logged in: run 'hf auth login' or set HF_TOKEN to a token that may write"
    if isinstance(error, e.EntryNotFoundError):
        return f"{repo} is not a gcpzoo repository: it lacks config.json or model.safetensors at {revision or 'main'}"
    if isinstance(error, e.HfHubHTTPError):
        return _refusal(error, repo, revision)
    return _local(error, repo)


def _unreachable(repo: str, offline: bool = False) -> str:
    missing = f"{repo}: the cache lacks what is needed, and"
    if offline or is_offline_mode():
        return f"{missing} HF_HUB_OFFLINE is set; unset it, or load it once online"
    return f"{missing} the Hub cannot be reached; check the network, the proxy or HF_ENDPOINT"


def _refusal(error: e.HfHubHTTPError, repo: str, revision: str | None) -> str:
    """Explain what the Hub answered."""
    if isinstance(error, e.GatedRepoError):
        return f"{repo} is gated: accept its terms on its page on the Hub, then {LOGIN}"
    if isinstance(error, e.DisabledRepoError):
        return f"{repo} has been disabled by the Hub"
    if isinstance(error, e.RepositoryNotFoundError):
        return f"{repo} does not exist on the Hub, or is private: check the name, {LOGIN}"
    if isinstance(error, e.RevisionNotFoundError):
        return f"{repo} has no revision {revision or constants.DEFAULT_REVISION!r}{_revisions(repo)}"
    status = error.response.status_code
    if status == 400 and "metadata" in str(error):
        return f"{repo}: the Hub refuses the model card's metadata: {short(error)}"
    if status == 401:
        return f"{repo}: the Hub refuses the token (expired, mistyped?): 'hf auth login' again or renew HF_TOKEN"
    if status >= 500:
        return f"{repo}: the Hub has a fault ({status}); try again later"
    known = {
        403: "this token may not do that: use one with write access to that namespace",
        404: "not found on the Hub: check the name and HF_ENDPOINT",
        409: "the Hub reports a conflict: it exists already, or was changed at the same moment; try again",
        412: "somebody else committed in the meantime; nothing was changed, publish again",
        413: "the Hub refuses the upload: too large, or the quota is used up",
        429: "the Hub refuses more requests for now (rate limit); try again in a few minutes",
    }
    return f"{repo}: {known.get(status, short(error))} ({status})"


def _local(error: BaseException, repo: str) -> str | None:
    """Explain errors that the client raises by itself, told by their text where they have no class."""
    text = short(error)
    if isinstance(error, (e.XetDownloadError, ConnectionError, RuntimeError)):
        return f"{repo}: the transfer through Xet failed ({text}); try again, or set HF_HUB_DISABLE_XET=1"
    if isinstance(error, OSError) and "onsistency check" in text:
        return f"{repo}: a file arrived incomplete; try again"
    if isinstance(error, OSError):
        return f"{repo}: {text}"
    if isinstance(error, ValueError) and "orce" in text and "download" in text:
        return (
            f"{repo}: a file in the cache is damaged and cannot be fetched again: no network, or HF_HUB_OFFLINE is set"
        )
    if isinstance(error, ValueError) and "metadata" in text:
        return f"{repo}: the Hub refuses the model card's metadata: {text}"
    if type(error).__module__.startswith("yaml"):
        return f"{repo}: the metadata at the top of the model card is not valid YAML: {text}"
    return None


def _revisions(repo: str) -> str:
    """List the branches and tags as ``; it has main, v1.0, …``, if the Hub tells."""
    try:
        refs = hub_api().list_repo_refs(repo)
        names = [r.name for r in [*refs.branches, *refs.tags]]
    except Exception:  # the error that is being explained matters more
        return ""
    return f"; it has {', '.join(names[:20])}, and commits by their hash"
