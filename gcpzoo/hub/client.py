"""The Hub's client under our library's name, with every error as one clear line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from gcpzoo import __version__
from gcpzoo.errors import ZooError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIBRARY = "gcpzoo"


def hub_api() -> HfApi:
    """A client that honours ``HF_ENDPOINT``, ``HF_TOKEN`` and the caches' variables, and names this library."""
    from huggingface_hub import HfApi

    return HfApi(library_name=LIBRARY, library_version=__version__)


def no_name_resolution() -> bool:
    """Whether the Hub's name cannot be resolved here, and no proxy would do it: known at once, not after retries."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if not host or _offline() or getproxies():
        return False
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


def split_revision(spec: str) -> tuple[str, str | None]:
    """``owner/repo[@revision]`` in its two parts."""
    repo, at, revision = spec.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or (at and not revision):
        raise ZooError(f"expected owner/repo or owner/repo@revision on the Hub, got {spec!r}")
    return repo, revision or None


def fetch(repo: str, revision: str | None, force: bool = False) -> tuple[Path, Path, str]:
    """``config.json`` and ``model.safetensors`` of one commit, from the cache where they are there.

    The revision is resolved by the first file; the second is asked for by the commit of the first.

    Returns:
        The two cached files, and the commit (40 hex digits).
    """
    api = hub_api()
    cached = not force and no_name_resolution()
    with clear_errors(repo, revision):
        config = _download(api, repo, "config.json", revision, force, cached)
        commit = config.parent.name
        weights = _download(api, repo, "model.safetensors", commit, force, cached)
    return config, weights, commit


def _download(api: HfApi, repo: str, name: str, revision: str | None, force: bool, cached: bool) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if cached:
        return Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))
    try:
        return Path(api.hf_hub_download(repo, name, revision=revision, force_download=force))
    except HTTPError as error:  # a broken connection: the client itself turns to the cache for most kinds, not for all
        if isinstance(error, HfHubHTTPError) or force:
            raise
        return Path(api.hf_hub_download(repo, name, revision=revision, local_files_only=True))


def search_hub(query: str | None = None, author: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Models on the Hub that carry this library's name.

    Args:
        query: part of the repository's name.
        author: a user or an organisation.
        limit: at most so many.

    Returns:
        For each: ``repo``, ``downloads``, ``likes``, ``updated`` (a date), ``private``.
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
    """Around calls of the client: whatever it raises becomes a ``ZooError`` of one line with the remedy."""
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
    """One line for an error of the Hub's client: what happened and what to do; ``None`` for a foreign error."""
    from huggingface_hub import errors as e

    missing = f"{repo}: what is needed is not in the cache, and"
    offline = f"{missing} HF_HUB_OFFLINE is set; unset it, or load it once online"
    network = f"{missing} the Hub cannot be reached; check the network, the proxy or HF_ENDPOINT"
    login = "log in with 'hf auth login' or set HF_TOKEN"
    first = " ".join(str(error).split())[:300]
    if isinstance(error, e.GatedRepoError):
        return f"{repo} is gated: accept its terms on its page on the Hub, then {login}"
    if isinstance(error, e.DisabledRepoError):
        return f"{repo} has been disabled by the Hub"
    if isinstance(error, e.RepositoryNotFoundError):
        return f"{repo} does not exist on the Hub, or is private: check the name, {login}"
    if isinstance(error, e.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}{_revisions(repo)}"
    if isinstance(error, e.OfflineModeIsEnabled):
        return offline
    if isinstance(error, e.LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, e.HfHubHTTPError) and cause.response.status_code < 500:
            return explain(cause, repo, revision)
        return offline if isinstance(cause, e.OfflineModeIsEnabled) or _offline() else network
    if isinstance(error, e.EntryNotFoundError):
        return f"{repo} is not a gcpzoo repository: it lacks config.json or model.safetensors at {revision or 'main'}"
    if isinstance(error, e.HFValidationError):
        return f"{repo!r} is not a repository's name: expected owner/repo ({first})"
    if isinstance(error, e.LocalTokenNotFoundError):
        return f"{repo}: not logged in: run 'hf auth login' or set HF_TOKEN to a token that may write"
    if isinstance(error, e.HfHubHTTPError):
        return _status(error, repo, first)
    if isinstance(error, e.RevisionResolutionError):
        return offline if _offline() else network
    if isinstance(error, e.HTTPError):
        return network
    if isinstance(error, (e.XetDownloadError, ConnectionError, RuntimeError)):
        return f"{repo}: the transfer through Xet failed ({first}); try again, or set HF_HUB_DISABLE_XET=1"
    if isinstance(error, OSError) and "onsistency check" in first:
        return f"{repo}: a file arrived incomplete; try again"
    if isinstance(error, OSError):
        return f"{repo}: {first}"
    if isinstance(error, ValueError) and "orce" in first and "download" in first:
        return (
            f"{repo}: a file in the cache is damaged and cannot be fetched again: no network, or HF_HUB_OFFLINE is set"
        )
    if isinstance(error, ValueError) and "metadata" in first:
        return f"{repo}: the Hub refuses the model card's metadata: {first}"
    if type(error).__module__.startswith("yaml"):
        return f"{repo}: the metadata at the top of the model card is not valid YAML: {first}"
    return None


def _status(error: Any, repo: str, first: str) -> str:
    """The line for an HTTP status that has no exception of its own."""
    status = error.response.status_code
    if status == 401:
        return f"{repo}: the Hub refuses the token (expired, mistyped?): 'hf auth login' again or renew HF_TOKEN"
    known = {
        403: "this token may not do that: use one with write access to that namespace",
        404: "not found on the Hub: check the name and HF_ENDPOINT",
        409: "the Hub reports a conflict: it exists already, or was changed at the same moment; try again",
        412: "somebody else committed in the meantime; nothing was changed, publish again",
        413: "the Hub refuses the upload: too large, or the quota is used up",
        429: "the Hub asks for patience (rate limit); try again in a few minutes",
    }
    if status >= 500:
        return f"{repo}: the Hub has a fault ({status}); try again later"
    return f"{repo}: {known.get(status, first)} ({status})"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _revisions(repo: str) -> str:
    """``; it has main, v1.0, …``, where the Hub tells."""
    try:
        refs = hub_api().list_repo_refs(repo)
        names = [r.name for r in [*refs.branches, *refs.tags]]
    except Exception:  # the error that is being explained matters more
        return ""
    return f"; it has {', '.join(names[:20])}, and commits by their hash"
