"""What the Hub or the network can refuse, each as one clear line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import publish


class TestRefusals:
    """Section by section, what the Hub or the network can say no with."""

    @pytest.mark.parametrize("token", ["", "hf_visitor"])
    def test_missing_and_private_look_the_same(self, hub: Hub, commit, monkeypatch, token):
        hub.repos["owner/animals"].private = True
        monkeypatch.setenv("HF_TOKEN", token)
        for name in ("owner/animals", "owner/nothing"):
            with pytest.raises(ZooError, match=f"{name} does not exist on the Hub, or is private.*HF_TOKEN"):
                gcpzoo.load(f"hf-hub:{name}")

    @pytest.mark.parametrize("token", ["", "hf_visitor"])
    def test_gated(self, hub: Hub, commit, monkeypatch, token):
        hub.repos["owner/animals"].gated = True
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ZooError, match="is gated: accept its terms"):
            gcpzoo.load("hf-hub:owner/animals")

    def test_a_wrong_revision_lists_those_that_are_there(self, hub: Hub, commit):
        hub.repos["owner/animals"].tags["v1.0"] = commit
        with pytest.raises(ZooError, match=r"has no revision 'v2'; it has main, v1\.0, and commits by their hash"):
            gcpzoo.load("hf-hub:owner/animals@v2")

    def test_a_repository_of_another_kind(self, hub: Hub):
        hub.seed("owner/notes", {"README.md": b"# Notes\n"})
        with pytest.raises(ZooError, match="is not a gcpzoo repository"):
            gcpzoo.load("hf-hub:owner/notes")
        hub.seed("owner/other", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
        with pytest.raises(ZooError, match="is not a gcpzoo model: its config"):
            gcpzoo.load("hf-hub:owner/other")

    def test_an_invalid_token(self, hub: Hub, commit, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_expired")
        with pytest.raises(ZooError, match="the Hub refuses the token"):
            gcpzoo.load("hf-hub:owner/animals")
        with pytest.raises(ZooError, match="the Hub refuses the token"):
            gcpzoo.hub.search_hub()

    def test_no_token_and_a_token_that_only_reads(self, hub: Hub, small, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
        with pytest.raises(ZooError, match="use one with write access"):
            publish(small, "reader/animals")
        monkeypatch.setenv("HF_TOKEN", "hf_visitor")
        with pytest.raises(ZooError, match="use one with write access"):
            publish(small, "owner/animals")
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(ZooError, match=r"not logged in|refuses the token"):
            publish(small, "owner/animals")

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_fault_of_the_hub(self, hub: Hub, small, status):
        hub.faults.append(lambda method, path: (status, {}, b"fault"))
        with pytest.raises(ZooError, match=r"Hub cannot be reached|the Hub has a fault"):
            gcpzoo.load("hf-hub:owner/animals")
        with pytest.raises(ZooError, match=f"the Hub has a fault \\({status}\\); try again later"):
            publish(small, "owner/animals")

    @pytest.mark.parametrize(
        ("status", "message"), [(409, "a conflict"), (413, "too large"), (429, "rate limit"), (412, "in the meantime")]
    )
    def test_the_answer_to_a_commit(self, hub: Hub, small, status, message):
        hub.faults.append(lambda method, path: (status, {}, b"{}") if "/commit/" in path else None)
        with pytest.raises(ZooError, match=message):
            publish(small, "owner/animals")

    def test_no_network(self, hub: Hub, small):
        hub.stop()
        with pytest.raises(ZooError, match="the Hub cannot be reached"):
            gcpzoo.load("hf-hub:owner/animals")
        with pytest.raises(ZooError, match="the Hub cannot be reached"):
            publish(small, "owner/animals")
        hub.start()

    def test_a_cached_model_needs_no_network(self, hub: Hub, commit, small, image):
        gcpzoo.load("hf-hub:owner/animals")
        hub.faults.append(lambda method, path: "drop")
        with torch.inference_mode():
            assert torch.equal(gcpzoo.load("hf-hub:owner/animals")(image), small(image))

    def test_offline_in_its_own_process(self, hub: Hub, commit):
        """``HF_HUB_OFFLINE`` is read when the client is imported, hence the process."""
        gcpzoo.load("hf-hub:owner/animals")
        program = (
            "import gcpzoo\nprint(gcpzoo.load('hf-hub:owner/animals').class_names[0])\n"
            "try: gcpzoo.load('hf-hub:owner/others')\nexcept gcpzoo.ZooError as e: print(e)"
        )
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_ENDPOINT": hub.url}
        before = len(hub.log)
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)
        cat, error = done.stdout.splitlines()
        assert cat == "a cat"
        assert "HF_HUB_OFFLINE is set" in error
        assert len(hub.log) == before
