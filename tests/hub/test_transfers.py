"""Downloads that break, files damaged in the cache, and which commit is loaded."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import get_record


class TestTransfers:
    def test_an_interrupted_download_is_taken_up_again(self, hub: Hub, commit, small, image):
        broken = []

        def break_once(method: str, path: str):
            if method == "GET" and "sig" not in path and len(path) == 65 and not broken:
                broken.append(path)
                return 200, {"Content-Length": "1000000", "Connection": "close"}, b"only the beginning"
            return None

        hub.faults.append(break_once)
        with torch.inference_mode():
            assert torch.equal(gcpzoo.load("hf-hub:owner/animals")(image), small(image))
        assert broken

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
    def test_a_file_damaged_in_the_cache_is_fetched_again(self, hub: Hub, commit, small, image, file):
        gcpzoo.load("hf-hub:owner/animals")
        (cached,) = Path(constants.HF_HUB_CACHE).glob(f"models--owner--animals/snapshots/*/{file}")
        blob = cached.resolve()
        data = bytearray(blob.read_bytes())
        data[0 if file == "config.json" else -1] ^= 0xFF
        blob.write_bytes(data)
        with torch.inference_mode():
            assert torch.equal(gcpzoo.load("hf-hub:owner/animals")(image), small(image))

    @pytest.mark.parametrize("offline", [True, False])
    def test_a_damaged_file_that_cannot_be_fetched_says_so(self, hub: Hub, commit, monkeypatch, offline):
        gcpzoo.load("hf-hub:owner/animals")
        (cached,) = Path(constants.HF_HUB_CACHE).glob("models--owner--animals/snapshots/*/model.safetensors")
        cached.resolve().write_bytes(b"damaged")
        if offline:
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        else:
            hub.faults.append(lambda method, path: (503, {}, b""))
        with pytest.raises(ZooError, match="is damaged and cannot be fetched again"):
            gcpzoo.load("hf-hub:owner/animals")

    def test_both_files_are_of_one_commit(self, hub: Hub, commit, small):
        """A commit between the two downloads does not mix them."""

        def interfere(method: str, path: str) -> None:
            if (
                path.endswith("/resolve/main/config.json")
                and method == "GET"
                and len(hub.repos["owner/animals"].commits) == 2
            ):
                hub.seed("owner/animals", {"model.safetensors": b"another one"})

        hub.faults.append(interfere)
        assert gcpzoo.load("hf-hub:owner/animals").record.source["revision"] == commit

    def test_weights_are_compared_with_the_hash_of_the_record(self, hub: Hub, commit, small, monkeypatch):
        known = get_record("resnet18_isqrt.digits")
        source = {"repo": "owner/animals", "revision": commit}
        digest = hub.repos["owner/animals"].files(commit)["model.safetensors"].lfs
        for stated in (digest, "0" * 64):
            record = dataclasses.replace(known, source=source, sha256=stated)
            monkeypatch.setitem(vars(sys.modules["gcpzoo.hub.loading"]), "get_record", lambda name, r=record: r)
            if stated == digest:
                assert gcpzoo.load("resnet18_isqrt.digits").record is record
            else:
                with pytest.raises(ZooError, match="is damaged: its sha256 is .*expected 000000000000"):
                    gcpzoo.load("resnet18_isqrt.digits")

    def test_a_pinned_commit_in_the_cache_costs_no_request(self, hub: Hub, commit):
        gcpzoo.load(f"hf-hub:owner/animals@{commit}")
        before = len(hub.log)
        gcpzoo.load(f"hf-hub:owner/animals@{commit}")
        assert len(hub.log) == before
