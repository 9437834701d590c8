"""Weights from files: strict, and every misfit named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from gcpzoo.errors import ZooError
from gcpzoo.models.backbones import create_backbone
from gcpzoo.models.weights import misfit, read_tensors


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return models.resnet18(weights=None).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_the_whole_network_fits(state: dict, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = create_backbone("resnet18", weights=path)
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())


def test_wrappers_and_parallel_prefixes_are_removed(state: dict, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "net.pth")
    assert read_tensors(tmp_path / "net.pth").keys() == state.keys()


def test_half_precision_files_become_float32(state: dict, tmp_path: Path) -> None:
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "net.safetensors")
    backbone = create_backbone("resnet18", weights=tmp_path / "net.safetensors")
    assert backbone.conv1.weight.dtype == torch.float32


def test_a_partial_file_needs_the_flag_and_names_what_is_missing(state: dict) -> None:
    part = {k: v for k, v in state.items() if not k.startswith("layer4")}
    with pytest.raises(ZooError, match=r"lacks 25 tensors .* layer4\.0\.conv1\.weight.*allow_partial"):
        create_backbone("resnet18", weights=part)
    backbone = create_backbone("resnet18", weights=part, allow_partial=True)
    assert torch.equal(backbone.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])


def test_a_cut_backbone_takes_a_partial_file(state: dict) -> None:
    part = {k: v for k, v in state.items() if not k.startswith("layer4.1")}
    create_backbone("resnet18", weights=part, until="layer3")


def test_weights_of_another_network_are_refused(state: dict) -> None:
    with pytest.raises(ZooError, match="does not fit backbone 'mobilenet_v2'.*unexpected"):
        create_backbone("mobilenet_v2", weights=state)
    with pytest.raises(ZooError, match="misshapen"):
        create_backbone("resnet50", weights=state, allow_partial=True)


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("executed",)


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ZooError, match="more than tensors .*print.*none of it was run"):
        read_tensors(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_pytorchs_advice_to_load_a_file_unsafely_is_not_quoted(tmp_path: Path) -> None:
    torch.save({"x": Evil()}, tmp_path / "new.pth")
    torch.save({"x": Evil()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pth").write_bytes(b"not weights")
    for name in ("new.pth", "old.pth", "text.pth"):
        with pytest.raises(ZooError, match="more than tensors") as error:
            read_tensors(tmp_path / name)
        assert not any(word in str(error.value) for word in ("weights_only", "\n", "\x1b", "trust"))


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "net.pth")
    with pytest.raises(ZooError, match="holds no tensors"):
        read_tensors(tmp_path / "net.pth")


def test_a_misfit_names_every_tensor_and_is_false_if_all_fit() -> None:
    found = misfit({"a": (1,), "b": (2, 3), "c": (4,)}, {"b": (3, 2), "c": torch.zeros(4), "d": (1,)})
    assert (found.missing, found.unexpected, found.misshapen) == (("a",), ("d",), ("b",))
    assert str(found) == "1 missing, 1 unexpected and 1 misshapen tensors, such as 'd'"
    assert not misfit({"c": torch.zeros(4)}, {"c": (4,)})


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 64])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    for name in ("net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ZooError, match=name):
            read_tensors(tmp_path / name)
    with pytest.raises(ZooError, match="no weights file"):
        read_tensors(tmp_path / "absent.pth")
