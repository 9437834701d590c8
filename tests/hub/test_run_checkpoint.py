"""The ``.ckpt`` files of runs: loaded strictly, in both formats, and never executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import load_task_checkpoint
from gcpzoo.hub.run_checkpoint import describe_run, read_run_checkpoint


@pytest.fixture
def content(small) -> dict:
    """What Lightning and the task write, with the averaged weights of the small model."""
    state = {f"model.{k}": v.clone() for k, v in small.state_dict().items()}
    return {
        "state_dict": state,
        "current_model_state": {k: torch.zeros_like(v) for k, v in state.items()},
        "hyper_parameters": {"lr": 0.1},
        "gcpzoo": describe_run(small, "resnet18_isqrt.digits"),
    }


def write(content: object, folder: Path) -> Path:
    torch.save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize("version", [None, 1, 2])
def test_both_formats_load_with_all_that_belongs_to_the_network(content, small, image, tmp_path, version):
    content["gcpzoo"]["format"] = version
    if version is None:
        del content["gcpzoo"]["format"]  # as version 0.1 wrote it
    path = write(content, tmp_path)
    model = gcpzoo.load(path)
    with torch.inference_mode():
        assert torch.equal(model(image), small(image))
    assert not model.training
    assert model.class_names == small.class_names
    assert model.preprocessing == small.preprocessing
    assert model.record is None
    read = read_run_checkpoint(path)
    assert (read.format, read.start) == (version or 1, "resnet18_isqrt.digits")
    assert read.hyper_parameters == {"lr": 0.1}


def test_a_run_is_described_by_plain_values(small):
    about = describe_run(small, None)
    assert about["format"] == 2
    assert about["config"] == small.config
    assert about["class_names"] == small.class_names
    assert about["preprocessing"] == small.preprocessing.to_dict()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c["state_dict"].pop("model.classifier.bias"), "1 missing, 0 unexpected and 0 misshapen"),
        (lambda c: c["state_dict"].update({"model.more": torch.zeros(1)}), "0 missing, 1 unexpected and 0 misshapen"),
        (
            lambda c: c["state_dict"].update({"model.classifier.bias": torch.zeros(4)}),
            "0 missing, 0 unexpected and 1 misshapen tensors, such as 'classifier.bias'",
        ),
        (lambda c: c.pop("state_dict"), "holds no 'state_dict'"),
        (lambda c: c["gcpzoo"]["config"].pop("num_classes"), "holds no 'num_classes'"),
        (lambda c: c["gcpzoo"].update(format=3, library_version="9.0"), r"format 3, written by gcpzoo 9\.0"),
        (lambda c: c["gcpzoo"].update(class_names=["one"]), "class_names must be 3 strings"),
        (lambda c: c["gcpzoo"].update(class_names=["a", "b", "c\x1b"]), "must not contain control characters"),
        (lambda c: c["gcpzoo"].pop("config"), "was not written by 'gcpzoo fit'"),
        (lambda c: c.pop("gcpzoo"), "was not written by 'gcpzoo fit'"),
    ],
)
def test_what_does_not_fit_is_named_with_the_file(content, tmp_path, damage, message):
    content["gcpzoo"] = {**content["gcpzoo"], "config": dict(content["gcpzoo"]["config"])}
    damage(content)
    path = write(content, tmp_path)
    with pytest.raises(ZooError, match=f"last.ckpt.*{message}") as caught:
        load_task_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_list_in_place_of_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ZooError, match="was not written by 'gcpzoo fit'"):
        gcpzoo.load(write([1, 2], tmp_path))


def test_a_damaged_file_is_refused(content, tmp_path):
    path = write(content, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ZooError, match="last.ckpt' cannot be read"):
        gcpzoo.load(path)


def test_a_missing_file_is_named():
    with pytest.raises(ZooError, match="no weights file 'nowhere/last.ckpt'"):
        gcpzoo.load("nowhere/last.ckpt")


def test_loading_leaves_the_random_state_alone(content, tmp_path):
    path = write(content, tmp_path)
    before = torch.random.get_rng_state()
    gcpzoo.load(path)
    assert torch.equal(before, torch.random.get_rng_state())
