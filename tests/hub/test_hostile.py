"""Files made to do harm, and files that are wrong in every other way."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile

import pytest
import torch
from checkpoint_files import edit
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import publish
from gcpzoo.hub.run_checkpoint import describe_run
from gcpzoo.training import ClassificationTask


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
            {"backbone": "timm:resnet18", "until": None, "backbone_args": {"pretrained": True}},
            {"backbone": "timm:resnet18", "until": None, "backbone_args": {"pretrained_cfg": {"file": "/etc/passwd"}}},
            {"backbone": "timm:hf-hub:owner/evil", "until": None},
            {"pretrained_backbone": True},
            {"backbone_weights": "/etc/passwd"},
        ],
    )
    def test_a_configuration_only_chooses_among_what_there_is(self, checkpoint, model):
        edit(checkpoint, model=model)
        with pytest.raises(ZooError):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            ({"dim": [8] * 200_000}, "limits: 65,536 channels, 16 in a list"),
            ({"hidden": [4] * 10**5}, "16 layers"),
            ({"hidden": [10**9]}, "16 layers"),
            ({"num_classes": 10**9}, "limit: 1,000,000"),
            ({"head_args": {"iterations": 10**9}}, "iterations must be at most 1000"),
            ({"head": "cbp", "head_args": {"sketch_dim": 10**9}}, "sketch_dim must be at most"),
            ({"backbone": "timm:test_vit", "until": None, "backbone_args": {"depth": 10**6}}, "5,000 modules"),
            ({"backbone": "timm:test_vit", "until": None, "backbone_args": {"embed_dim": 10**12}}, "parameters"),
            ({"backbone": "vit_b_16", "until": None, "backbone_args": {"image_size": 16 * 10**6}}, "parameters"),
            ({"dim": 2**70}, "whole numbers of at most"),
        ],
    )
    def test_absurd_sizes_are_refused_at_once(self, checkpoint, model, words):
        edit(checkpoint, model=model)
        start = time.monotonic()
        with pytest.raises(ZooError, match=words):
            gcpzoo.load(checkpoint)
        assert time.monotonic() - start < 20  # seconds, on a busy machine; to build them takes minutes or the memory

    def test_a_tensor_that_claims_more_than_is_stored_is_refused(self, small, tmp_path):
        state = {f"model.{k}": v for k, v in small.state_dict().items()}
        state["model.classifier.bias"] = torch.zeros(1).expand(10**12)
        torch.save({"state_dict": state, "gcpzoo": describe_run(small, None)}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="'classifier.bias' must be a dense tensor with all its values"):
            gcpzoo.load(tmp_path / "last.ckpt")

    def test_a_compressed_checkpoint_is_not_unpacked(self, small, tmp_path):
        torch.save({"state_dict": {}, "gcpzoo": describe_run(small, None), "zeros": torch.zeros(10**6)}, tmp_path / "a")
        with zipfile.ZipFile(tmp_path / "a") as plain, zipfile.ZipFile(tmp_path / "b.ckpt", "w") as packed:
            for name in plain.namelist():
                packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
        with pytest.raises(ZooError, match="is compressed, as PyTorch never does"):
            gcpzoo.load(tmp_path / "b.ckpt")

    def test_hyper_parameters_of_a_checkpoint_name_no_other_weights(self, small, tmp_path):
        task = ClassificationTask(3, backbone="resnet18", head="isqrt", dim=8, until="layer1")
        state = {f"model.{k}": v for k, v in small.state_dict().items()}
        other = {"checkpoint": "hf-hub:owner/evil", "backbone_weights": "/etc/passwd", "pretrained_backbone": True}
        content = {"state_dict": state, "gcpzoo": describe_run(small, None), "pytorch-lightning_version": "2.6.6"}
        torch.save({**content, "hyper_parameters": {**task.hparams, **other}}, tmp_path / "last.ckpt")
        loaded = ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt")
        assert loaded.start is None
        torch.save({**content, "hyper_parameters": {**task.hparams, "dim": 60_000}}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="its tensors do not fit its configuration"):
            ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt")
        torch.save({**content, "hyper_parameters": {**task.hparams, "evil": 1}}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="unknown hyper-parameter of the checkpoint 'evil'"):
            ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt")

    def test_a_pickle_under_another_name_is_not_opened(self, checkpoint, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        edit(checkpoint, weights_sha256=None)
        (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ZooError, match="not an intact safetensors file"):
            gcpzoo.load(checkpoint)
        torch.save({"state_dict": {}, "gcpzoo": Evil()}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="holds more than tensors"):
            gcpzoo.load("last.ckpt")
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("header", [2**40, 2**63, 10])
    def test_an_oversized_header_is_refused(self, checkpoint, header):
        edit(checkpoint, weights_sha256=None)
        (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", header) + b"{}")
        with pytest.raises(ZooError, match="not an intact safetensors file"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("text", [b"[]", b"{", b"\xff\xfe", b'{"library": "gcpzoo", "model": []}', b"[" * 100_000])
    def test_a_configuration_that_is_none_is_refused(self, checkpoint, text):
        (checkpoint / "config.json").write_bytes(text)
        with pytest.raises(ZooError):
            gcpzoo.load(checkpoint)

    def test_an_enormous_configuration_is_not_read(self, checkpoint):
        with (checkpoint / "config.json").open("ab") as file:
            file.truncate(64 * 2**20)
        with pytest.raises(ZooError, match="at most 32 MiB, it is larger"):
            gcpzoo.load(checkpoint)

    def test_text_of_another_encoding_is_named(self, checkpoint):
        (checkpoint / "config.json").write_bytes('{"library": "gcpzoo", "name": "ü"}'.encode("latin-1"))
        with pytest.raises(ZooError, match=r"config.json must be UTF-8 text \(invalid"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("key", ["num_classes", "backbone", "head"])
    def test_a_configuration_that_lacks_a_key_is_named(self, checkpoint, key):
        config = json.loads((checkpoint / "config.json").read_text())
        del config["model"][key]
        (checkpoint / "config.json").write_text(json.dumps(config))
        with pytest.raises(ZooError, match=f"config.json lacks '{key}' in 'model'"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_numbers_must_be_finite(self, checkpoint, value):
        edit(checkpoint, preprocessing={"mean": [value, 0.5, 0.5]})
        with pytest.raises(ZooError, match="config.json must hold finite numbers, got -?(NaN|Infinity)"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("arguments", [[1], "width", 3])
    def test_arguments_of_the_backbone_are_a_mapping(self, checkpoint, arguments):
        edit(checkpoint, model={"backbone_args": arguments})
        with pytest.raises(ZooError, match="backbone_args must be a mapping from names to values, got"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("names", [["one"], "abc", [1, 2, 3], {"0": "a"}])
    def test_class_names_are_one_string_a_class(self, checkpoint, names):
        edit(checkpoint, class_names=names)
        with pytest.raises(ZooError, match="class_names must be 3 strings"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("values", [{"crop": -1}, {"script": "x"}, [1], {"mean": ["a", 0, 0]}])
    def test_a_preprocessing_is_numbers_only(self, checkpoint, values):
        edit(checkpoint, preprocessing=values)
        with pytest.raises(ZooError):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize(
        ("about", "words"),
        [
            (7, "about must be a mapping, got 7"),
            ({"metrics": "high"}, "field 'metrics' must be a valid dictionary, got 'high'"),
            ({"metrics": {"top1": "high"}, "measured_by": "us"}, r"field 'metrics'\['top1'\] must be a valid number"),
            ({"metrics": {"top1": 91.5}}, "field 'measured_by' must say who measured the metrics"),
            ({"measured_by": ["us"]}, "field 'measured_by' must be a valid string"),
            ({"data": 7}, "field 'data' must be a valid string, got 7"),
            ({"seeds": "many"}, "field 'seeds' must be a valid list"),
            ({"caveats": "one"}, "field 'caveats' must be a valid list"),
        ],
    )
    def test_what_is_said_about_a_model_has_the_types_of_a_record(self, checkpoint, small, tmp_path, about, words):
        edit(checkpoint, about=about)
        with pytest.raises(ZooError, match=words):
            gcpzoo.load(checkpoint)
        if isinstance(about, dict):
            with pytest.raises(ZooError, match=words):
                gcpzoo.hub.save_local(small, tmp_path / "again", about)
            with pytest.raises(ZooError, match=words):
                publish(small, "owner/animals", about=about, dry_run=True)

    @pytest.mark.parametrize("digest", [5, "", "0" * 63, "x" * 64, ["0" * 64]])
    def test_a_hash_is_64_hex_digits(self, checkpoint, digest):
        edit(checkpoint, weights_sha256=digest)
        with pytest.raises(ZooError, match="weights_sha256 must be 64 hex digits, got"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_model_outside_the_zoo_cannot_call_itself_verified(self, checkpoint, pinned):
        folder = checkpoint.rename(checkpoint.parent / "resnet18_isqrt.digits")
        edit(folder, about={"metrics": {"top1": 99.9}, "measured_by": "gcpzoo"})
        if not pinned:
            edit(folder, weights_sha256=None)
        status = gcpzoo.load(folder).record.status
        assert status == ("sha256 pinned" if pinned else "unverified (authors' link, no published hash)")

    def test_a_repository_cannot_call_itself_verified(self, hub: Hub, small):
        card = publish(small, "owner/animals", about={"metrics": {"top1": 99.9}, "measured_by": "gcpzoo"}).card
        assert gcpzoo.load("hf-hub:owner/animals").record.status == "sha256 pinned"
        assert "Weights: sha256 pinned." in card
        assert "measured by its publisher." in card

    def test_other_figures_for_a_model_of_the_zoo_are_the_publishers(self):
        about = {"metrics": {"top1": 100.0}}
        card = publish("resnet18_isqrt.digits", "owner/digits", about=about, dry_run=True).card
        assert "Weights: sha256 pinned." in card
        assert "measured by its publisher." in card

    def test_file_names_of_a_repository_lead_nowhere(self, hub: Hub, small, tmp_path):
        publish(small, "owner/animals")
        hub.seed("owner/animals", {"../../escaped.txt": b"x", "/etc/escaped": b"x"})
        gcpzoo.load("hf-hub:owner/animals")
        assert not list(tmp_path.rglob("escaped*"))
