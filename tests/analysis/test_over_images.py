"""One pass of a network over many images: what it computes, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import photo, truncate, write

import gcpzoo
from gcpzoo.analysis.over_images import choose_device, logits, over_images
from gcpzoo.errors import ZooError
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.preprocessing import Preprocessing


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    names = [f"{k}.png" for k in range(5)]
    write(tmp_path, names[:3])
    write(tmp_path, names[3:], width=33, height=30)
    return [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views", ["single", "mirror", "ten_crop"])
def test_batches_give_what_each_image_gives_alone(
    small: gcpzoo.GCPNet, paths: list[str], views: str, workers: int
) -> None:
    if workers and views != "mirror":
        return  # processes once
    found: dict[int, torch.Tensor] = {}
    for outputs in over_images(small, logits, paths, views=views, batch_size=4, workers=workers):
        found |= outputs.values
    assert list(found) == [0, 1, 2, 3, 4]
    for i, size in ((1, (20, 16)), (4, (33, 30))):
        x = small.preprocessing.transform(views)(photo(*size, seed=i if i < 3 else i - 3))  # type: ignore[union-attr]
        with torch.no_grad():
            expected = small(x.reshape(-1, *x.shape[-3:])).mean(0)
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


def test_images_of_several_sizes_stay_in_order_and_a_broken_one_is_named(
    small: gcpzoo.GCPNet, paths: list[str]
) -> None:
    truncate(Path(paths[1]))
    own_size = Preprocessing(resize=None, crop=None)
    order = [0, 3, 1, 2, 4]
    (outputs,) = over_images(small, logits, [paths[i] for i in order], rule=own_size, workers=0)
    assert list(outputs.values) == [0, 1, 3, 4]
    assert list(outputs.faults) == [2]
    assert "1.png" in outputs.faults[2]
    (alone,) = over_images(small, logits, [paths[2]], rule=own_size)
    torch.testing.assert_close(outputs.values[3], alone.values[0], rtol=1e-4, atol=1e-5)


def test_the_model_is_as_it_was_and_gradients_work_between_batches(small: gcpzoo.GCPNet, paths: list[str]) -> None:
    small.train()
    try:
        for _ in over_images(small, logits, paths, batch_size=2, workers=0):
            assert not small.training
            assert torch.ones(1, requires_grad=True).exp().requires_grad
        assert small.training
    finally:
        small.eval()


def test_what_cannot_work_is_refused(small: gcpzoo.GCPNet, paths: list[str]) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, "workers must be between 0 and 1024, got -1"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or another of torch's, got 'gpu'"),
        ({"views": "five"}, "unknown views 'five'"),
    ):
        with pytest.raises(ZooError, match=message):
            list(over_images(small, logits, paths, **options))  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        assert choose_device().type == "cpu"
        with pytest.raises(ZooError, match="device 'cuda' cannot be used here"):
            choose_device("cuda")


def test_a_fingerprint_changes_with_weights_classes_and_names() -> None:
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    seen = [fingerprint(model)]
    model.class_names = ["a", "b"]
    seen.append(fingerprint(model))
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    seen.append(fingerprint(model))
    model.preprocessing = Preprocessing(resize=20)
    seen.append(fingerprint(model))
    whole = fingerprint(model, classifier=False)
    model.reset_classifier(3)
    assert fingerprint(model, classifier=False) == whole
    with torch.no_grad():
        model.backbone.conv1.weight[0, 0, 0, 0] += 1e-3
    assert fingerprint(model, classifier=False) != whole
    assert len(set(seen)) == 4
