"""Loading: folders, the Hub with all its refusals, damaged and hostile files."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import publish, save_local


@pytest.fixture
def folder(small, tmp_path) -> Path:
    save_local(small, tmp_path / "model", {"licence": "apache-2.0"})
    return tmp_path / "model"


@pytest.fixture
def commit(hub: Hub, small) -> str:
    return publish(small, "owner/animals", licence="apache-2.0").commit


def edit(folder: Path, **changes) -> None:
    """Change the configuration, ``model`` and ``tensors`` of a folder, with a hash that fits."""
    config = json.loads((folder / "config.json").read_text())
    config["model"].update(changes.pop("model", {}))
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


class TestFolder:
    def test_a_folder_loads_with_and_without_the_prefix(self, folder, small, image):
        for name in (f"local-dir:{folder}", str(folder), folder):
            model = gcpzoo.load(name)
            with torch.inference_mode():
                assert torch.equal(model(image), small(image))
            assert model.record.licence == "apache-2.0"

    def test_16_bit_weights_become_float32(self, small, image, tmp_path):
        save_local(small, tmp_path / "half", dtype=torch.float16)
        stored = load_file(tmp_path / "half" / "model.safetensors")
        assert stored["classifier.weight"].dtype == torch.float16
        model = gcpzoo.load(tmp_path / "half")
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert torch.equal(model.classifier.weight, small.classifier.weight.half().float())

    def test_the_transform_is_the_one_that_was_stored(self, folder):
        from PIL import Image

        assert gcpzoo.load(folder).transform(Image.new("RGB", (100, 80))).shape == (3, 48, 48)

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
    def test_a_folder_that_lacks_a_file_is_named(self, folder, missing):
        (folder / missing).unlink()
        with pytest.raises(ZooError, match=f"no gcpzoo checkpoint: {missing} is missing"):
            gcpzoo.load(folder)

    def test_tampered_weights_are_found_out(self, folder):
        weights = load_file(folder / "model.safetensors")
        weights["classifier.bias"] += 1e-6
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ZooError, match="damaged: its sha256 is"):
            gcpzoo.load(folder)

    def test_truncated_weights_are_found_out(self, folder):
        edit(folder, weights_sha256=None)
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-100])
        with pytest.raises(ZooError, match="no intact safetensors file"):
            gcpzoo.load(folder)

    def test_a_newer_format_asks_for_a_newer_library(self, folder):
        edit(folder, format_version=2, library_version="9.0")
        with pytest.raises(ZooError, match=r"format 2 \(written by gcpzoo 9\.0\).*pip install -U gcpzoo"):
            gcpzoo.load(folder)

    def test_tensors_must_fit_strictly(self, folder):
        weights = load_file(folder / "model.safetensors")
        weights["head.extra"] = weights.pop("classifier.bias")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        edit(folder, weights_sha256=None)
        with pytest.raises(ZooError, match="1 missing, 1 unexpected and 0 misshapen tensors, such as 'head.extra'"):
            gcpzoo.load(folder)


class TestNames:
    def test_an_unknown_name_comes_with_the_nearest(self):
        with pytest.raises(ZooError, match=r"did you mean .*resnet50_isqrt\.in1k_li2018"):
            gcpzoo.load("resnet50_isqrt.in1k_li2019")

    def test_a_repository_needs_its_prefix(self):
        with pytest.raises(ZooError, match="write 'hf-hub:owner/animals'"):
            gcpzoo.load("owner/animals")

    @pytest.mark.parametrize("name", ["hf-hub:animals", "hf-hub:owner/animals@", "hf-hub:a/b/c", "hf-hub:/animals"])
    def test_a_malformed_repository_is_an_error(self, name):
        with pytest.raises(ZooError, match="expected owner/repo"):
            gcpzoo.load(name)

    @pytest.mark.parametrize("name", ["weights.pth", "weights.pth.tar", "a/b/weights.bin"])
    def test_pickles_are_sent_to_convert(self, name):
        with pytest.raises(ZooError, match="gcpzoo convert"):
            gcpzoo.load(name)

    def test_a_missing_folder_is_an_error(self):
        with pytest.raises(ZooError, match="there is no folder 'nowhere'"):
            gcpzoo.load("local-dir:nowhere")


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

    def test_a_pinned_commit_in_the_cache_costs_no_request(self, hub: Hub, commit):
        gcpzoo.load(f"hf-hub:owner/animals@{commit}")
        before = len(hub.log)
        gcpzoo.load(f"hf-hub:owner/animals@{commit}")
        assert len(hub.log) == before


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


class TestHostile:
    """Repositories made to do harm: nothing of them is imported, unpickled, or written where they say."""

    @pytest.mark.parametrize(
        "model",
        [
            {"backbone": "os.system"},
            {"head": "builtins.eval"},
            {"class_path": "torch.nn.Module"},
            {"head_args": {"__class__": "os"}},
            {"backbone_args": {"weights": "IMAGENET1K_V1"}},
            {"backbone": "timm:resnet18", "until": None, "backbone_args": {"checkpoint_path": "/etc/passwd"}},
            {"backbone": ["resnet18"]},
            {"dim": 10**9},
            {"num_classes": -1},
            {"num_classes": "many"},
            {"blocks": {"os": {}}},
        ],
    )
    def test_a_configuration_only_chooses_among_what_there_is(self, folder, model):
        edit(folder, model=model)
        with pytest.raises(ZooError):
            gcpzoo.load(folder)

    def test_a_pickle_under_another_name_is_not_opened(self, folder, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        edit(folder, weights_sha256=None)
        (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ZooError, match="no intact safetensors file"):
            gcpzoo.load(folder)
        torch.save({"state_dict": {}, "gcpzoo": Evil()}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="cannot be read: Weights only load failed"):
            gcpzoo.load("last.ckpt")
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("header", [2**40, 2**63, 10])
    def test_an_oversized_header_is_refused(self, folder, header):
        edit(folder, weights_sha256=None)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", header) + b"{}")
        with pytest.raises(ZooError, match="no intact safetensors file"):
            gcpzoo.load(folder)

    @pytest.mark.parametrize("text", [b"[]", b"{", b"\xff\xfe", b'{"library": "gcpzoo", "model": []}', b"[" * 100_000])
    def test_a_configuration_that_is_none_is_refused(self, folder, text):
        (folder / "config.json").write_bytes(text)
        with pytest.raises(ZooError):
            gcpzoo.load(folder)

    def test_an_enormous_configuration_is_not_read(self, folder):
        with (folder / "config.json").open("ab") as file:
            file.truncate(64 * 2**20)
        with pytest.raises(ZooError, match="larger than 32 MiB"):
            gcpzoo.load(folder)

    @pytest.mark.parametrize("names", [["one"], "abc", [1, 2, 3], {"0": "a"}])
    def test_class_names_are_one_string_a_class(self, folder, names):
        edit(folder, class_names=names)
        with pytest.raises(ZooError, match="class_names must be 3 strings"):
            gcpzoo.load(folder)

    @pytest.mark.parametrize("values", [{"crop": -1}, {"script": "x"}, [1], {"mean": ["a", 0, 0]}])
    def test_a_preprocessing_is_numbers_only(self, folder, values):
        edit(folder, preprocessing=values)
        with pytest.raises(ZooError):
            gcpzoo.load(folder)

    def test_file_names_of_a_repository_lead_nowhere(self, hub: Hub, small, tmp_path):
        publish(small, "owner/animals")
        hub.seed("owner/animals", {"../../escaped.txt": b"x", "/etc/escaped": b"x"})
        gcpzoo.load("hf-hub:owner/animals")
        assert not list(tmp_path.rglob("escaped*"))
