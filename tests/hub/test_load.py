"""Loading from folders and by name."""

from __future__ import annotations

import pytest
import torch
from checkpoint_files import edit
from safetensors.torch import load_file, save_file

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import save_local


class TestFolder:
    def test_a_folder_loads_with_and_without_the_prefix(self, checkpoint, small, image):
        for name in (f"local-dir:{checkpoint}", str(checkpoint), checkpoint):
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

    def test_the_transform_is_the_one_that_was_stored(self, checkpoint):
        from PIL import Image

        assert gcpzoo.load(checkpoint).transform(Image.new("RGB", (100, 80))).shape == (3, 48, 48)

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
    def test_a_folder_that_lacks_a_file_is_named(self, checkpoint, missing):
        (checkpoint / missing).unlink()
        with pytest.raises(ZooError, match=f"not a gcpzoo checkpoint: {missing} is missing"):
            gcpzoo.load(checkpoint)

    def test_tampered_weights_are_found_out(self, checkpoint):
        weights = load_file(checkpoint / "model.safetensors")
        weights["classifier.bias"] += 1e-6
        save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
        with pytest.raises(ZooError, match="damaged: its sha256 is"):
            gcpzoo.load(checkpoint)

    def test_truncated_weights_are_found_out(self, checkpoint):
        edit(checkpoint, weights_sha256=None)
        data = (checkpoint / "model.safetensors").read_bytes()
        (checkpoint / "model.safetensors").write_bytes(data[:-100])
        with pytest.raises(ZooError, match="not an intact safetensors file"):
            gcpzoo.load(checkpoint)

    def test_a_newer_format_asks_for_a_newer_library(self, checkpoint):
        edit(checkpoint, format_version=2, library_version="9.0")
        with pytest.raises(ZooError, match=r"format 2 \(written by gcpzoo 9\.0\).*pip install -U gcpzoo"):
            gcpzoo.load(checkpoint)

    def test_tensors_must_fit_strictly(self, checkpoint):
        weights = load_file(checkpoint / "model.safetensors")
        weights["head.extra"] = weights.pop("classifier.bias")
        save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
        edit(checkpoint, weights_sha256=None)
        with pytest.raises(ZooError, match="1 missing, 1 unexpected and 0 misshapen tensors, such as 'head.extra'"):
            gcpzoo.load(checkpoint)


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


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_text_or_a_path(name):
    with pytest.raises(ZooError, match=f"name must be a name of the zoo, .*, got {name!r}"):
        gcpzoo.load(name)


def test_a_folder_of_several_runs_says_which_it_holds(tmp_path):
    for i in (1, 2):
        (tmp_path / f"fold-{i}" / "checkpoints").mkdir(parents=True)
        (tmp_path / f"fold-{i}" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ZooError, match=r"holds 2 runs: name one, such as .*fold-2"):
        gcpzoo.load(tmp_path)
