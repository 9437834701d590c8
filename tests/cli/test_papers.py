"""Every config in configs/paper states the published recipe, and the index, the files and the page agree."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import pkgutil
import shlex
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import gcpzoo
from gcpzoo.data import Augment
from gcpzoo.hub.records import get_record
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.paths import resource
from gcpzoo.training import ClassificationTask, OptimizerConfig, ScheduleConfig

FOLDER = resource("configs") / "paper"
CONFIGS = sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.glob("*/*.yaml"))
Numbers = tuple[int, int, float, float, float, dict[int, float]]
FINE_GRAINED = (10, 200, 3e-3, 1e-4)
RIEMANNIAN = {0: 1, 49: 1, 50: 0.1, 99: 0.1}
NUMBERS: dict[str, Numbers] = {  # batch, epochs, rate, weight decay, rate of the classifier ×, {epoch: rate / first}
    "mpn_cov/*": (256, 90, 0.0631, 1e-4, 1, {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 89: 0.01}),
    "isqrt/imagenet_*_matconvnet": (256, 60, 0.0631, 1e-4, 1, {29: 1, 30: 0.1, 44: 0.1, 45: 0.01, 59: 0.01}),
    "isqrt/imagenet_alexnet": (128, 30, 0.0794, 5e-4, 1, {9: 1, 10: 0.1, 19: 0.1, 20: 0.01, 29: 0.01}),
    "isqrt/imagenet_*": (160, 65, 0.1, 1e-4, 1, {29: 1, 30: 0.1, 44: 0.1, 45: 0.01, 59: 0.01, 60: 1e-3, 64: 1e-3}),
    "isqrt/*_vgg16_bn": (10, 40, 3e-3, 1e-4, 20, {0: 1, 19: 1, 20: 0.1, 39: 0.1}),
    "isqrt/*": (10, 100, 1.2e-3, 1e-4, 5, {0: 1, 99: 1}),
    "*bcnn/*": (10, 200, 1e-3, 5e-4, 1000, {0: 1, 199: 1}),
    "cbp/*": (10, 200, 1e-3, 5e-4, 1000, {0: 1, 199: 1}),
    "g2denet/*": (10, 40, 3e-3, 1e-4, 20, {0: 1, 19: 1, 20: 0.1, 39: 0.1}),
    "svd/imagenet_alexnet_*": (128, 30, 0.0794, 5e-4, 1, {9: 1, 10: 0.1, 19: 0.1, 20: 0.01, 29: 0.01}),
    "svd/imagenet_*": (256, 60, 0.0794, 1e-4, 1, {29: 1, 30: 0.1, 44: 0.1, 45: 0.01, 59: 0.01}),
    "svd/hybrid_*": (256, 60, 0.0794, 1e-4, 1, {29: 1, 30: 0.1, 44: 0.1, 45: 0.01, 59: 0.01}),
    "s[ve][db]/cub_*": (*FINE_GRAINED, 20, {0: 1, 49: 1, 50: 0.1, 99: 0.1, 100: 0.01, 199: 0.01}),
    "s[ve][db]/cars_*": (*FINE_GRAINED, 10, {0: 1, 49: 1, 50: 0.1, 99: 0.1, 100: 0.01, 199: 0.01}),
    "s[ve][db]/aircraft_*": (8, 50, 3e-3, 1e-3, 5, {0: 1, 20: 1, 21: 0.1, 39: 0.1, 40: 0.01, 49: 0.01}),
    "riemgcp/aircraft_*": (8, 50, 5e-3, 1e-4, 5, {0: 1, 20: 1, 21: 0.1, 49: 0.1}),
    "riemgcp/cub_resnet50_pow_tmlr": (6, 100, 5e-3, 1e-4, 1, RIEMANNIAN),
    "riemgcp/cars_resnet50_pow_tmlr": (10, 100, 5e-3, 1e-4, 1, RIEMANNIAN),
    "riemgcp/*": (10, 100, 0.05, 1e-4, 10, RIEMANNIAN),
    "gcp_optimization/mobilenet_v2_lrnorm*": (96, 400, 0.045, 4e-5, 1, {1: 0.98, 10: 0.98**10, 399: 0.98**399}),
    "gcp_optimization/mobilenet_v2_lradju*": (192, 150, 0.06, 4e-5, 1, {
        0: 1, 25: 7 / 12, 50: 1 / 6, 75: 0.55 / 6, 100: 1 / 60, 149: (0.001 - 49 / 50 * 0.00099) / 0.06}),
    "gcp_optimization/mobilenet_v2_lrfast": (96, 100, 0.06, 4e-5, 1, {1: 0.92, 10: 0.92**10, 99: 0.92**99}),
    "gcp_optimization/shufflenet_v2_lrnorm": (1024, 240, 0.5, 4e-5, 1, {0: 1, 120: 0.5, 180: 0.25}),
    "gcp_optimization/shufflenet_v2_lradju": (1024, 100, 0.5, 4e-5, 1, {0: 1, 50: 0.5, 75: 0.25}),
    "gcp_optimization/shufflenet_v2_lrfast": (1024, 60, 0.5, 4e-5, 1, {0: 1, 30: 0.5, 45: 0.25}),
    "gcp_optimization/*_lrnorm*": (256, 100, 0.1, 1e-4, 1, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 90: 1e-3, 99: 1e-3}),
    "gcp_optimization/*_lradju*": (256, 50, 0.1, 1e-4, 1, {0: 1, 7: (42 / 49) ** 2, 48: (1 / 49) ** 2, 49: 0}),
    "gcp_optimization/*_lrfast": (256, 30, 0.1, 1e-4, 1, {0: 1, 13: (39 / 52) ** 11, 26: 0.5**11}),
    "gsop/net1_*": (384, 95, 0.15, 1e-4, 1, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 89: 0.01, 90: 1e-3, 94: 1e-3}),
    "gsop/net2_*": (384, 65, 0.15, 1e-4, 1, {29: 1, 30: 0.1, 44: 0.1, 45: 0.01, 59: 0.01, 60: 1e-3, 64: 1e-3}),
    "dropcov/imagenet_resnet*": (256, 100, 0.1, 1e-4, 1, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 90: 1e-3}),
    "dropcov/imagenet_deit_base": (1024, 300, 5e-4, 0.065, 1, {5: 1, 299: 3e-5}),
    "dropcov/*": (1024, 300, 1e-3, 0.03, 1, {5: 1, 299: 3e-5}),
    "deepbdc/*_meta": (64, 400, 0.05, 5e-4, 1, {0: 1, 399: 1}),
    "deepbdc/*_stl": (64, 220, 0.05, 5e-4, 1, {0: 1, 119: 1, 120: 0.1, 169: 0.1, 170: 0.01, 219: 0.01}),
    "isice/*": (65, 100, 1.2e-4, 1e-4, 5, {0: 1, 14: 1, 15: 0.1, 29: 0.1, 30: 0.01, 99: 0.01}),
    "moment_probing/imagenet_*": (256, 30, 1e-4, 0.05, 1, {5: 1}),
    "moment_probing/cars_*": (64, 100, 2e-4, 0.05, 1, {10: 1}),
    "moment_probing/cub_*": (64, 100, 1e-4, 0.05, 1, {10: 1}),
}  # fmt: skip
BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "vgg16_bn", "vgg16", "alexnet", "mobilenet_v2", "shufflenet_v2",
    "deit_tiny", "deit_small", "deit_base", "vit_b16", "t2t_vit_14",
)  # fmt: skip
NAMES = {
    "deit_tiny": "sovit_drop_tiny", "deit_small": "sovit_drop_small", "deit_base": "sovit_drop_base",
    "t2t_vit_14": "sovit_drop_14", "vit_b16": "timm:vit_base_patch16_224.augreg_in21k",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}  # fmt: skip
HEADS = {
    "mpn_cov/*": "mpn_cov", "bcnn/*": "bcnn", "cbp/*": "cbp", "improved_bcnn/*": "improved_bcnn", "seb/*": "seb",
    "g2denet/*": "gaussian", "svd/*_pade": "svd_pade", "svd/*_taylor": "svd_taylor", "svd/*_newton": "svd_newton",
    "svd/*_trunc": "svd_trunc", "svd/*_topn": "svd_topn", "svd/*_original": "svd_original",
    "svd/*_power_iteration": "svd_power_iteration", "riemgcp/*_scale_pow_emlr": "scale_pow_emlr",
    "riemgcp/*_pow_emlr": "pow_emlr", "riemgcp/*_pow_tmlr": "pow_tmlr", "riemgcp/*_cho_tmlr": "cho_tmlr",
    "gsop/net1_*": "gap", "dropcov/imagenet_resnet*": "dropcov", "dropcov/*": "mgcrp", "deepbdc/*": "bdc",
    "isice/*": "isice", "moment_probing/*": "moment_probing",
}  # fmt: skip


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def of(table: dict[str, Any], name: str) -> Any:
    return next((value for pattern, value in table.items() if fnmatch(name, pattern)), None)


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_configs", FOLDER.parents[1] / "docs" / "make_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(maker: Any) -> dict[str, Any]:
    return {row.path: row for row in maker.rows(maker.load())}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_has_the_published_numbers(name: str) -> None:
    config = read(name)
    batch, epochs, lr, decay, factor, rates = of(NUMBERS, name)
    assert (config["data"]["init_args"]["batch_size"], config["trainer"]["max_epochs"]) == (batch, epochs)
    optimizer = OptimizerConfig(**{k: v for k, v in config["model"]["optimizer"].items() if k != "lr_factors"})
    assert (optimizer.lr, optimizer.weight_decay, optimizer.classifier_lr_factor) == (lr, decay, factor)
    used = optimizer.create(gcpzoo.create_model("resnet18", "gap", 2, until="layer1")).param_groups[0]
    assert used.get("momentum", 0.9) == 0.9
    schedule = ScheduleConfig(**config["model"]["schedule"])
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = schedule.create(stand_in, epochs), []
    for _ in range(epochs):
        found.append(stand_in.param_groups[0]["lr"])
        stand_in.step()
        scheduler.step()
    assert {e: found[e] for e in rates} == pytest.approx(rates, rel=5e-3, abs=5e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_has_the_network_of_its_name(name: str) -> None:
    model = read(name)["model"]
    token = next(b for b in BACKBONES if b in name)
    assert NAMES.get(token, token) == model["backbone"]
    hybrid = name.startswith("svd/hybrid")
    assert model["head"] == ("isqrt" if hybrid else of(HEADS, name) or "isqrt")
    if hybrid:
        root = name.removeprefix("svd/hybrid_").partition("_")[2]
        callback = read(name)["trainer"]["callbacks"][0]["init_args"]
        assert callback == {"root": root if root in ("exact", "mpa_lya", "mtp_lya", "minimax") else f"svd_{root}"}
    if token.startswith(("resnet", "vgg")):
        assert model["last_stride"] == (2 if name.startswith("isice/") and token == "resnet50" else 1)
    else:
        assert "last_stride" not in model
    dim = 128 if name.endswith(("_d128", "_8k", "_stl")) else 256
    assert model["dim"] == (
        None if model["head"] in ("gap", "bcnn", "cbp", "improved_bcnn", "mgcrp", "moment_probing") else dim
    )


def test_details_of_rows() -> None:
    assert read("svd/cub_resnet50_pade")["trainer"]["gradient_clip_val"] == 5
    assert read("svd/imagenet_resnet50_newton")["model"]["head_args"] == {"iterations": 10}
    assert "head_args" not in read("svd/hybrid_resnet50_newton")["model"]
    stages = {"unfreeze_at": 100, "accumulate": 4}
    assert read("bcnn/cub_vgg16")["trainer"]["callbacks"][0]["init_args"] == stages
    assert read("bcnn/cub_vgg16")["model"]["optimizer"]["classifier_weight_decay"] == 0
    tokens = {"heads": 6, "head_dim": 24, "normalization": None, "token_dropout": 0.2, "dropout": 0.5}
    assert read("dropcov/imagenet_deit_small")["model"]["head_args"] == tokens
    assert read("dropcov/imagenet_deit_small")["model"]["fusion"] == "sum"
    assert read("gsop/net1_resnet50")["model"]["blocks"] == {"gsop": {"stages": [1, 2, 3, 4]}}
    net2 = read("gsop/net2_resnet50")["model"]
    assert (net2["blocks"], net2["head_args"]) == ({"gsop": {"stages": [1, 2, 3]}}, {"iterations": 3})
    assert read("isice/cub_resnet50")["model"]["head_args"] == {"steps": 5, "sparsity": 0.01, "rate": 1.0}
    plus = read("moment_probing/cub_vit_b16_plus")["model"]
    assert (plus["blocks"], plus["frozen"], plus["fusion"]) == ({"psrp": {}}, ["backbone"], "mean")
    assert read("deepbdc/cub_resnet18_stl")["model"]["optimizer"]["lr_factors"] == {"head.temperature": 0.02}
    assert read("isqrt/cub_resnet50")["model"]["checkpoint"] == "resnet50_isqrt.in1k_li2018"
    assert read("isqrt/cub_resnet50")["data"]["init_args"]["views"] == "mirror"


def arguments(kind: Any) -> set[str]:
    parameters = set(inspect.signature(kind).parameters)
    if "kwargs" in parameters:
        parameters |= set().union(*(inspect.signature(base).parameters for base in kind.__mro__[1:]))
    return parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_of_a_row_exists(name: str) -> None:
    config = read(name)
    assert set(config) <= {"seed_everything", "evaluate", "model", "data", "trainer"}
    assert set(config["model"]) <= arguments(ClassificationTask)
    kinds = [config["data"], *config["trainer"].get("callbacks", [])]
    for kind in kinds:
        given = dict(kind["init_args"])
        assert set(given) <= arguments(pkgutil.resolve_name(kind["class_path"]))
        for key, group in (("augment", Augment), ("preprocessing", Preprocessing)):
            assert set(given.get(key, {})) <= {field.name for field in dataclasses.fields(group)}


@pytest.mark.parametrize("name", [c for c in CONFIGS if {"checkpoint", "backbone_weights"} & set(read(c)["model"])])
def test_the_start_of_a_row_fits_its_network(name: str, maker: Any, rows: dict[str, Any]) -> None:
    row = rows[f"{name}.yaml"]
    model, options = row.model, shlex.split(maker.control(row))
    record = get_record(model.get("checkpoint") or model["backbone_weights"])
    keys = ["backbone"] if "backbone_weights" in model else [k for k in GCPNet.CONFIG_KEYS if k in model]
    assert {k: model[k] for k in keys} == {k: record.config.get(k) for k in keys}
    if (start := options[options.index("--model.backbone_weights") + 1]) != "null":
        assert get_record(start).config["backbone"] == model["backbone"]
        assert get_record(start).config["head"] == "gap"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_control_of_a_row_is_the_same_but_for_the_head(name: str, maker: Any, rows: dict[str, Any]) -> None:
    row = rows[f"{name}.yaml"]
    options = shlex.split(maker.control(row))
    base = read(options.pop(0).removeprefix("paper/")[:-5]) if options[0].startswith("paper/") else read(name)
    given = {k.removeprefix("--model."): yaml.safe_load(v) for k, v in zip(options[::2], options[1::2])}
    own, control = read(name)["model"], {**base["model"], **given}
    kept = ("backbone", "backbone_args", "last_stride", "until", "hidden", "optimizer", "schedule", "frozen")
    assert {k: control.get(k) for k in kept} == {k: own.get(k) for k in kept}
    assert control["head"] == "gap"
    assert not any(control.get(k) for k in ("dim", "head_args", "fusion", "checkpoint"))
    assert not [c for c in base["trainer"].get("callbacks", []) if "HybridRoot" in c["class_path"]]
    sources = [k for k in ("checkpoint", "backbone_weights", "pretrained_backbone") if control.get(k)]
    assert len(sources) == len([k for k in ("checkpoint", "backbone_weights", "pretrained_backbone") if own.get(k)])


def test_files_and_page_are_what_the_index_makes(maker: Any) -> None:
    assert not maker.differing(maker.load()), "run python docs/make_configs.py"


def test_every_row_says_where_its_figure_is_from(maker: Any) -> None:
    index = maker.load()
    for row in maker.rows(index):
        assert {"of", "result"} <= set(row.facts), row.path
        assert row.paper["source"], row.path
        if row.body is not None:
            text = maker.header(row, index)
            assert all(
                f"# {word}" in text for word in ("Row:", "Published:", "Start:", "Data:", "Last stride:", "Control")
            )


def test_a_changed_a_missing_and_a_foreign_file_are_named(
    maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = maker.load()
    monkeypatch.setattr(maker, "ROOT", tmp_path)
    monkeypatch.setattr(maker, "FOLDER", tmp_path / "paper")
    monkeypatch.setattr(maker, "PAGE", tmp_path / "experiments.md")
    monkeypatch.setattr(maker, "load", lambda: index)
    (tmp_path / "paper").mkdir()
    monkeypatch.setattr("sys.argv", ["make_configs.py"])
    maker.main()
    assert not maker.differing(index)
    changed, gone, foreign = (
        tmp_path / "paper" / "gsop" / f"{n}.yaml" for n in ("net1_resnet50", "net2_resnet50", "x")
    )
    changed.write_text(changed.read_text().replace("77.98", "78.98"))
    gone.unlink()
    foreign.touch()
    assert maker.differing(index) == [changed, gone, foreign]
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["make_configs.py", "--check"])
    with pytest.raises(SystemExit) as stop:
        maker.main()
    assert stop.value.code == 1
    assert capsys.readouterr().out.count("is not what the index makes") == 3
    assert foreign.exists()


def test_the_index_is_no_config(cli: Callable) -> None:
    code, _, err = cli("fit", "--config", "paper/index.yaml")
    assert code == 2
    assert "unknown config file 'paper/index.yaml'" in err


def test_null_as_checkpoint_leaves_the_network_of_the_file(cli: Callable, folder: Path) -> None:
    code, out, err = cli(
        "fit", "--config", "paper/isqrt/cub_resnet101.yaml", "--model.checkpoint", "null", "--data", "ImageFolder",
        "--data.root", folder, "--data.workers", 0, "--data.image_size", 64, "--data.batch_size", 2,
        "--trainer.max_steps", 1, "--evaluate", "false", "--output", "run", "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "43.12 M parameters" in out  # ResNet-101's 42.50 M, the head's and the classifier's; not ResNet-50's
