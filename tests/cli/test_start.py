"""Where a network comes from: a config file, ``--model`` or ``--ckpt_path``, and which of them wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import gcpzoo
from gcpzoo.functional import covariance
from gcpzoo.models.preprocessing import Preprocessing

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A small model that has nothing in common with the network of finetune/images.yaml."""
    torch.manual_seed(0)
    gcpzoo.hub.save_local(gcpzoo.create_model("resnet18", "mpn_cov", 7, dim=8, until="layer1"), tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def by_config(folder: Path) -> list[object]:
    """Options of a short run on the test images by finetune/images.yaml."""
    return [
        "--config", "finetune/images.yaml", "--data.root", folder, "--data.workers", 0, "--data.image_size", 32,
        "--trainer.accelerator", "cpu", "--output", "by_config",
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["--model", "--model.checkpoint"])
@pytest.mark.parametrize("equals", [False, True])
def test_a_model_on_the_command_line_replaces_the_network_of_a_config(
    option: str, equals: bool, cli: Cli, start: Path, by_config: list[object]
) -> None:
    model = [f"{option}={start}"] if equals else [option, start]
    code, _, err = cli("fit", *by_config, *model, "--trainer.max_epochs", 1)
    assert code == 0, err
    config = gcpzoo.load("by_config/checkpoints/last.ckpt").config
    assert (config["backbone"], config["head"], config["dim"], config["num_classes"]) == ("resnet18", "mpn_cov", 8, 3)
    report = json.loads(Path("by_config/metrics.json").read_text())
    assert report["start"] == str(start)
    hyper = torch.load("by_config/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert hyper["optimizer"]["name"] == "AdamW"  # the rest of the config holds


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--model.head", "gap"], "brings its own architecture, head='mpn_cov': leave out 'gap'"),
        (["--model.dim=16"], "brings its own architecture, dim=8: leave out 16"),
        (["--model.backbone_weights", "trunk.pth"], "weights must come from one source"),
        (["--model.pretrained_backbone", "true"], "weights must come from one source"),
    ],
)
def test_what_is_typed_beside_a_model_is_not_ignored(
    typed: list[str], message: str, cli: Cli, start: Path, by_config: list[object]
) -> None:
    Path("trunk.pth").touch()
    code, _, err = cli("fit", *by_config, "--model", start, *typed)
    assert code == 2
    assert message in err


def test_a_run_is_evaluated_and_resumed_by_a_config_of_another_network(
    cli: Cli, small_fit: list[str], run_folder: Path, by_config: list[object]
) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli("test", *by_config, "--ckpt_path", ckpt)
    assert code == 0, err
    before, after = (json.loads(p.read_text()) for p in (run_folder / "metrics.json", Path("by_config/metrics.json")))
    assert after["test"]["top1"] == before["test"]["top1"]
    with pytest.warns(
        UserWarning, match=r"last.ckpt keeps its own backbone, .*optimizer.*; the config file says other"
    ):
        code, _, err = cli("fit", *by_config[:-1], "resumed", "--ckpt_path", ckpt, "--trainer.max_epochs", 3)
    assert code == 0, err
    state = torch.load("resumed/checkpoints/last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["optimizer"]["lr"] == 0.05
    assert gcpzoo.load("resumed/checkpoints/last.ckpt").config == gcpzoo.load(ckpt).config


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--model.dim", "16"], "was trained with dim=8, which --ckpt_path keeps: leave out 16"),
        (["--model.optimizer.lr", "0.3"], "was trained with optimizer.lr=0.05, which --ckpt_path keeps: leave out 0.3"),
        (["--model.schedule.milestones", "[4]"], "was trained with schedule.milestones=None"),
        (["--model.head_args.iterations", "3"], "was trained with head_args.iterations=5"),
    ],
)
def test_what_is_typed_beside_a_checkpoint_of_a_run_is_not_ignored(
    typed: list[str], message: str, cli: Cli, small_fit: list[str], run_folder: Path
) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli("fit", *small_fit[1:9], "--ckpt_path", ckpt, *typed)
    assert code == 2
    assert message in err


def test_the_same_options_again_are_no_conflict_with_a_checkpoint(
    cli: Cli, small_fit: list[str], run_folder: Path
) -> None:
    code, _, err = cli(*small_fit, "--trainer.max_epochs", 3, "--ckpt_path", run_folder / "checkpoints" / "last.ckpt")
    assert code == 0, err
    assert json.loads((run_folder / "metrics.json").read_text())["fit"]["epochs"] == 3


def test_an_evaluation_takes_its_weights_from_one_place(
    cli: Cli, small_fit: list[str], run_folder: Path, start: Path
) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli("test", *small_fit[1:9], "--ckpt_path", ckpt, "--model", start)
    assert code == 2
    assert "has weights of its own: leave out model.checkpoint" in err


def test_a_checkpoint_that_lacks_a_tensor_is_refused(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(ckpt, weights_only=True)
    del content["state_dict"]["model.classifier.bias"]
    torch.save(content, "broken.ckpt")
    for command in (["test", *small_fit[1:9]], small_fit):
        code, _, err = cli(*command, "--ckpt_path", "broken.ckpt", "--output", "o")
        assert code == 2
        assert "classifier.bias" in err
        assert "Traceback" not in err
    code, _, err = cli("test", *small_fit[1:9], "--model", "broken.ckpt", "--output", "o")
    assert code == 2
    assert "classifier.bias" in err


def test_an_evaluation_takes_the_models_own_image_size_unless_one_is_chosen(
    cli: Cli, small_fit: list[str], run_folder: Path
) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    Path("size.yaml").write_text("data:\n  class_path: ImageFolder\n  init_args:\n    image_size: 224\n")
    sizes = (
        ("own", [], 32),
        ("typed", ["--data.image_size", 40], 40),
        ("default", ["--data.image_size", 224], 224),
        ("file", ["--config", "size.yaml"], 224),
    )
    for output, typed, crop in sizes:
        code, _, err = cli("test", *small_fit[1:9], "--ckpt_path", ckpt, "--output", output, *typed)
        assert code == 0, err
        assert json.loads(Path(output, "metrics.json").read_text())["data"]["preprocessing"]["crop"] == crop


@pytest.mark.parametrize("backbone", ["resnet18", "timm:resnet18"])
@pytest.mark.parametrize("option", ["[conv1,bn1,layer1.0.conv]", "[conv1,bn1,layer1.0]"])
def test_modules_of_every_library_are_frozen_by_path(
    backbone: str, option: str, cli: Cli, small_fit: list[str]
) -> None:
    arguments = [a for a in small_fit if a not in ("--model.until", "layer1")]
    arguments[arguments.index("--model.backbone") + 1] = backbone
    arguments[arguments.index("--trainer.max_epochs") + 1] = "1"
    code, _, err = cli(*arguments, "--model.frozen", option, "--output", "o", "--evaluate", "false")
    if option.endswith("conv]"):
        assert code == 2
        assert "layer1.0.conv1" in err
        return
    assert code == 0, err
    trained = gcpzoo.load("o/checkpoints/last.ckpt").backbone.state_dict()
    prefix = "net." if backbone.startswith("timm:") else ""
    momentum = torch.load("o/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    frozen = [k for k in trained if k.startswith(tuple(prefix + p for p in ("conv1.", "bn1.", "layer1.0.")))]
    statistics = [k for k in frozen if k.endswith("num_batches_tracked")]
    assert statistics
    assert all(trained[k] == 0 for k in statistics)
    assert trained[f"{prefix}layer1.1.bn1.num_batches_tracked"] == 3
    whole = gcpzoo.load("o/checkpoints/last.ckpt")
    learned = sum(1 for n, _ in whole.named_parameters() if n.removeprefix("backbone.") not in frozen)
    assert len(momentum) == learned


@pytest.mark.parametrize(("head", "arguments"), [("cbp", []), ("mpn_cov", ["--model.head_args.cov_groups", "2"])])
def test_the_spectrum_of_a_run_is_that_of_its_test_images(
    head: str, arguments: list[str], cli: Cli, small_fit: list[str], folder: Path
) -> None:
    code, _, err = cli(*small_fit, "--model.head", head, *arguments, "--output", "o")
    assert code == 0, err
    found = json.loads(Path("o/spectrum.json").read_text())
    model = gcpzoo.load("o/checkpoints/last.ckpt")
    paths = sorted((folder / "test").rglob("*.png"))[:6]  # the first batch
    images = torch.stack([model.transform(gcpzoo.data.images.read_image(str(path))) for path in paths])
    with torch.no_grad():
        x = model.head.reduction(model.forward_features(images)).flatten(2).double()
    groups = 2 if arguments else 1
    values = torch.linalg.eigvalsh(covariance(x.reshape(6 * groups, 8 // groups, -1))).flip(1)
    expected = (values / values[:, :1]).mean(0).tolist()
    assert found["covariance"] == pytest.approx(expected, abs=1e-6)
    if head == "mpn_cov":
        roots = values.clamp_min(0).sqrt()
        assert found["normalized"] == pytest.approx((roots / roots[:, :1]).mean(0).tolist(), abs=1e-4)
    else:
        assert "normalized" not in found


def test_a_training_keeps_the_mean_of_its_start_and_the_size_of_its_data(
    cli: Cli, small_fit: list[str], tmp_path: Path
) -> None:
    model = gcpzoo.create_model("resnet18", "gap", 7, until="layer1")
    model.preprocessing = Preprocessing(resize=64, crop=48, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    gcpzoo.hub.save_local(model, tmp_path / "start")
    arguments = [*small_fit[:11], "--model", tmp_path / "start", "--trainer.max_epochs", 1, "--output", "o"]
    code, _, err = cli(*arguments, "--trainer.accelerator", "cpu")
    assert code == 0, err
    rule = json.loads(Path("o/metrics.json").read_text())["data"]["preprocessing"]
    assert (rule["mean"], rule["std"], rule["crop"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 32)


def test_a_model_is_not_evaluated_on_another_number_of_classes(cli: Cli, small_fit: list[str], start: Path) -> None:
    code, _, err = cli("test", *small_fit[1:9], "--model", start)
    assert code == 2
    assert "the data has 3 classes, the model 7: it can only be evaluated on its own" in err


def test_options_win_over_a_config_wherever_it_stands(cli: Cli) -> None:
    options, config = ["--model.head", "gap", "--trainer.max_epochs", "1"], ["--config", "pretrain/digits.yaml"]
    code, out, err = cli("fit", *options, *config, "--print_config")
    assert code == 0, err
    assert yaml.safe_load(out)["model"]["head"] == "gap"
    assert out == cli("fit", *config, *options, "--print_config")[1]
