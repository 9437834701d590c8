"""``verify``, and the commands around it."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_convert import small_resnet

import gcpzoo
from gcpzoo.cli.main import parser as command_parser
from gcpzoo.errors import ZooError
from gcpzoo.experiments import verify
from gcpzoo.experiments.verify import golden_logits, top1
from gcpzoo.hub import save_local
from gcpzoo.hub.convert.common import transpose_triangle


@pytest.fixture
def images(tmp_path, small) -> Path:
    """Two images of noise for each class of the small model."""
    generator = torch.Generator().manual_seed(3)
    for name in small.class_names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            noise = torch.randint(0, 256, (50, 60, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def fitted(small: gcpzoo.GCPNet, images: Path) -> gcpzoo.GCPNet:
    """The small model with a classifier that is right on all images."""
    right = gcpzoo.GCPNet.from_config(small.config).eval()
    right.load_state_dict(small.state_dict())
    right.class_names, right.preprocessing = small.class_names, small.preprocessing
    with torch.inference_mode():
        paths = [(i, p) for i, name in enumerate(small.class_names) for p in sorted((images / name).iterdir())]
        x = torch.stack([small.transform(Image.open(p)) for _, p in paths])
        v = right.forward_head(right.forward_features(x), pre_logits=True)
        v = torch.cat([v, torch.ones(len(v), 1)], 1)
        fit = torch.linalg.lstsq(v, torch.eye(3)[[i for i, _ in paths]]).solution
        right.classifier.weight.copy_(fit[:-1].T)
        right.classifier.bias.copy_(fit[-1])
    return right


def run(*arguments: str) -> int:
    args = command_parser().parse_args(arguments)
    return args.handler(args)


@pytest.fixture
def model_folder(tmp_path, small, images) -> str:
    accuracy, count = top1(small, images)
    assert count == 6
    save_local(small, tmp_path / "model", {"metrics": {"top1": accuracy}, "measured_by": "gcpzoo"})
    return str(tmp_path / "model")


def test_all_is_well_with_an_intact_checkpoint(model_folder, images):
    checks = {c.name: c for c in verify(model_folder, images)}
    assert checks["sha256"].ok
    assert checks["strict load"].ok
    assert checks["finite"].ok
    assert checks["top-1"].ok
    assert checks["golden logits"].ok is None


def test_accuracy_counts_by_the_names_of_the_folders(small, images):
    expected = 0
    for i, name in enumerate(small.class_names):
        for path in (images / name).iterdir():
            with torch.inference_mode():
                expected += int(small(small.transform(Image.open(path))[None]).argmax()) == i
    assert top1(small, images, batch_size=4)[0] == pytest.approx(100 * expected / 6)


def test_folders_of_other_classes_are_an_error(model_folder, images):
    (images / "a cat").rename(images / "a camel")
    (images / "a dog").rename(images / "more")
    for path in (images / "more").iterdir():
        path.rename(images / "a camel" / f"more {path.name}")
    (images / "more").rmdir()
    with pytest.raises(ZooError, match="1 of 2 folders are none of the 3 classes: a camel"):
        verify(model_folder, images)
    with pytest.raises(ZooError, match="there is no folder"):
        verify(model_folder, images / "nowhere")
    (images / "empty").mkdir()
    with pytest.raises(ZooError, match="is empty"):
        verify(model_folder, images / "empty")


def test_values_that_are_not_finite_are_found(tmp_path, small):
    state = {k: v.clone() for k, v in small.state_dict().items()}
    broken = gcpzoo.GCPNet.from_config(small.config)
    state["classifier.bias"][0] = float("nan")
    broken.load_state_dict(state)
    save_local(broken, tmp_path / "broken")
    assert {c.name: c.ok for c in verify(tmp_path / "broken")}["finite"] is False


@pytest.mark.parametrize(("measured_by", "tolerance"), [("gcpzoo", 0.05), ("authors", 0.3)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_accuracy_may_differ_by_its_tolerance_in_points(measured_by, tolerance, sign, tmp_path, small, images):
    accuracy, _ = top1(small, images)
    assert accuracy in (pytest.approx(100 * k / 6) for k in range(7))
    for part, ok in ((0.9, True), (1.1, False)):
        stated = accuracy + sign * part * tolerance
        save_local(small, tmp_path / str(ok), {"metrics": {"top1": stated}, "measured_by": measured_by})
        check = {c.name: c for c in verify(tmp_path / str(ok), images)}["top-1"]
        assert check.ok is ok
        assert check.detail.startswith(f"{accuracy:.2f} % of 6 images, the record states {stated}")


@pytest.mark.parametrize(("error", "ok"), [(0.0, True), (0.9e-3, True), (1.1e-3, False), (-1.1e-3, False)])
def test_stored_logits_may_differ_by_a_thousandth_of_the_largest(error, ok, monkeypatch):
    model = gcpzoo.load("resnet18_isqrt.digits")
    logits = golden_logits(model, [1, 3, 32, 32], 7)
    largest = max(range(10), key=lambda k: abs(logits[k]))
    logits[(largest + 1) % 10] += error * abs(logits[largest])  # relative to the largest, not to its own logit
    model.record = copy.copy(model.record)
    object.__setattr__(model.record, "golden", {"seed": 7, "shape": [1, 3, 32, 32], "logits": logits})
    monkeypatch.setattr(importlib.import_module("gcpzoo.experiments.verify"), "load", lambda name: model)
    check = {c.name: c for c in verify("resnet18_isqrt.digits")}["golden logits"]
    assert check.ok is ok
    assert check.detail.startswith("relative error")


def test_folders_are_matched_to_classes_by_name_not_by_order(small, images):
    right, order = fitted(small, images), [2, 0, 1]
    permuted, state = gcpzoo.GCPNet.from_config(small.config).eval(), right.state_dict()
    for key in ("classifier.weight", "classifier.bias"):
        state[key] = state[key][order]
    permuted.load_state_dict(state)
    permuted.class_names, permuted.preprocessing = [small.class_names[k] for k in order], small.preprocessing
    assert top1(permuted, images) == (100, 6)
    permuted.class_names = small.class_names
    assert top1(permuted, images) == (0, 6)


def test_a_limit_takes_evenly_spaced_images(small, images):
    assert top1(small, images, limit=3)[1] == 3
    assert top1(small, images, limit=100)[1] == 6


def test_golden_logits_are_those_of_the_seed(small):
    x = torch.randn([1, 3, 48, 48], generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        assert golden_logits(small, [1, 3, 48, 48], 7) == pytest.approx(small(x)[0].tolist(), abs=1e-5)


def test_columns_in_the_other_order_are_suspected(tmp_path, small, images):
    """A classifier that is right only after the permutation, as fast-MPN-COV's old file: verify says so."""
    right = fitted(small, images)
    assert top1(right, images)[0] == 100
    state = right.state_dict()
    i, j = torch.triu_indices(8, 8)
    inverse = torch.argsort(j * (j + 1) // 2 + i)
    old = {**state, "classifier.weight": state["classifier.weight"][:, inverse]}
    again = dict(old)
    transpose_triangle(right.config, again)
    assert torch.equal(again["classifier.weight"], state["classifier.weight"])
    right.load_state_dict(old)
    assert top1(right, images)[0] < 50
    save_local(right, tmp_path / "old", {"metrics": {"top1": 100.0}, "measured_by": "authors"})
    check = {c.name: c for c in verify(tmp_path / "old", images)}["top-1"]
    assert check.ok is False
    assert check.detail.endswith("in the lower order 100.00 %: convert with --triangle lower")


class TestCommands:
    def test_convert_then_verify(self, tmp_path, capsys):
        torch.save(small_resnet(8, 36), tmp_path / "w.pth")
        out = str(tmp_path / "out")
        arguments = [str(tmp_path / "w.pth"), "--source", "gcp_optimization", "--arch", "resnet18_mpncov"]
        assert run("convert", *arguments, "--output", out) == 0
        assert f'gcpzoo.load("local-dir:{out}")' in capsys.readouterr().out
        assert run("verify", out) == 0
        assert "ok     strict load" in capsys.readouterr().out

    def test_verify_fails_with_1(self, model_folder, images, capsys):
        config = json.loads((Path(model_folder) / "config.json").read_text())
        config["about"]["metrics"]["top1"] += 10
        (Path(model_folder) / "config.json").write_text(json.dumps(config))
        assert run("verify", model_folder, "--data", str(images)) == 1
        assert "FAILED top-1" in capsys.readouterr().out

    def test_publish_prints_the_commit_and_the_line_that_loads(self, hub, model_folder, capsys):
        assert run("publish", model_folder, "owner/animals", "--licence", "mit", "--dry-run") == 0
        assert "would publish config.json, model.safetensors, README.md" in capsys.readouterr().out
        assert run("publish", model_folder, "owner/animals", "--licence", "mit", "--tag", "v1") == 0
        commit = hub.repos["owner/animals"].tags["v1"]
        printed = capsys.readouterr().out
        assert f"commit {commit} (README.md, config.json, model.safetensors)" in printed
        assert f'gcpzoo.load("hf-hub:owner/animals@{commit}")' in printed
        assert run("search-hub") == 0
        assert "owner/animals" in capsys.readouterr().out

    def test_card_writes_the_zoo_card_and_knows_when_it_is_stale(self, tmp_path, capsys):
        assert run("card", str(tmp_path), "--check") == 1
        assert run("card", str(tmp_path)) == 0
        assert (tmp_path / "MODEL_CARD.md").read_text().startswith("# The zoo's model card")
        assert run("card", str(tmp_path), "--check") == 0
