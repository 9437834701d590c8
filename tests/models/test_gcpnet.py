"""GCPNet: any backbone with any head, rebuilt from plain JSON."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.models.gcpnet import GCPNet, create_model

x64 = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small(**kwargs: object) -> GCPNet:
    return create_model(**{"backbone": "resnet18", "until": "layer1", "dim": 8, "num_classes": 5, **kwargs}).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("head", gcpzoo.list_heads())
def test_every_head_gives_logits_on_a_backbone(head: str) -> None:
    model = small(head=head)
    with torch.no_grad():
        logits = model(x64)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_a_configuration_is_plain_json_and_rebuilds_the_network() -> None:
    model = small(head_args={"iterations": 3}, hidden=[6], fusion="concat", dropout=0.1)
    other = GCPNet.from_config(json.loads(json.dumps(model.config))).eval()
    assert other.config == model.config
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x64), other(x64))


def test_timms_contract_for_features() -> None:
    model = small()
    f = model.forward_features(x64)
    assert f.shape == (2, 64, 16, 16)
    v = model.forward_head(f, pre_logits=True)
    assert v.shape == (2, model.num_features) == (2, 36)
    assert torch.equal(model.forward_head(f), model(x64))
    model.reset_classifier(7)
    assert model(x64).shape == (2, 7)
    assert model.config["num_classes"] == 7


@pytest.mark.parametrize(
    ("backbone", "head", "given", "expected"),
    [
        ("resnet18", "isqrt", None, 1),
        ("resnet18", "gap", None, 2),
        ("resnet18", "gap", 1, 1),
        ("resnet18", "isqrt", 2, 2),
        ("vgg11", "bcnn", None, 1),
        ("mobilenet_v2", "isqrt", None, None),
    ],
)
def test_the_surgery_of_the_last_stage_is_recorded(backbone: str, head: str, given: int | None, expected: int) -> None:
    model = create_model(backbone, head, 2, dim=8, last_stride=given)
    assert model.config["last_stride"] == expected
    assert GCPNet.from_config(model.config).config == model.config


def test_dim_is_256_for_second_order_heads_and_none_for_gap() -> None:
    assert create_model("resnet18", "isqrt", 2).config["dim"] == 256
    assert create_model("resnet18", "gap", 2).config["dim"] is None


@pytest.mark.parametrize("fusion", ["sum", "mean", "mean_norm", "concat", "all"])
@pytest.mark.parametrize("backbone", ["timm:test_vit", "timm:test_convnext", "timm:test_efficientnet"])
def test_class_token_and_second_order_tokens_are_fused(backbone: str, fusion: str) -> None:
    model = create_model(backbone, "isqrt", 4, dim=8, fusion=fusion, head_args={"reduction": "linear"}).eval()
    x = torch.rand(2, 3, model.backbone.input_size, model.backbone.input_size)
    with torch.no_grad():
        logits, v = model(x), model.forward_head(model.forward_features(x), pre_logits=True)
    assert logits.shape == (2, 4)
    assert v.shape[1] == model.num_features == 36 + (model.backbone.num_features if fusion == "concat" else 0)


def tokens(model: GCPNet, prefix: float, first: float, others: float) -> torch.Tensor:
    """Features of a vision transformer: a class token, a first position and all other positions, each constant."""
    f = torch.full((1, model.backbone.num_features, 101, 1), others)
    f[:, :, 0], f[:, :, 1] = prefix, first
    return f


def test_fusion_uses_the_first_token_of_a_transformer() -> None:
    model = create_model("timm:test_vit", "gap", 4, fusion="concat").eval()
    v = model.forward_head(tokens(model, prefix=7.0, first=3.0, others=1.0), pre_logits=True)
    c = model.backbone.num_features
    assert torch.equal(v[:, c:], torch.full((1, c), 7.0))
    # the head sees the 100 positions only; their mean in float32
    torch.testing.assert_close(v[:, :c], torch.full((1, c), 1.02), rtol=1e-6, atol=0)


def test_fusion_uses_the_mean_of_the_positions_where_there_is_no_class_token() -> None:
    model = create_model("resnet18", "isqrt", 4, dim=8, until="layer1", fusion="concat").eval()
    f = torch.rand(2, 64, 5, 4)
    v = model.forward_head(f, pre_logits=True)
    torch.testing.assert_close(v[:, -64:], f.flatten(2).mean(2))
    assert (v[:, -64:] - f.amax((2, 3))).abs().min() > 1e-3


@pytest.mark.parametrize("backbone", ["timm:test_vit", "resnet18"])
def test_the_sum_of_two_classifiers_adds_the_logits_of_the_first_token(backbone: str) -> None:
    model = create_model(backbone, "isqrt", 4, dim=8, fusion="sum").eval()
    f = torch.rand(2, model.backbone.num_features, 101, 1)
    first = f[:, :, 0, 0] if backbone == "timm:test_vit" else f.mean((2, 3))
    second_order = model.classifier(model.head(f[:, :, 1:] if backbone == "timm:test_vit" else f))
    expected = second_order + model.first_classifier(first)
    torch.testing.assert_close(model.forward_head(f), expected)


def test_fusion_of_all_gives_the_class_token_to_the_head() -> None:
    model = create_model("timm:test_vit", "gap", 4, fusion="all").eval()
    f = tokens(model, prefix=102.0, first=1.0, others=1.0)
    torch.testing.assert_close(model.forward_head(f, pre_logits=True), torch.full((1, 64), 2.0))


@pytest.mark.parametrize(
    ("backbone", "mean", "std", "size"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224),
        ("inception_v3", (0.5,) * 3, (0.5,) * 3, 299),
        ("timm:vit_tiny_patch16_224", (0.5,) * 3, (0.5,) * 3, 224),
        ("timm:test_vit", (0.5,) * 3, (0.5,) * 3, 160),
    ],
)
def test_the_preprocessing_is_that_of_the_backbone(backbone: str, mean: tuple, std: tuple, size: int) -> None:
    preprocessing = create_model(backbone, "gap", 2).preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.crop) == (mean, std, size)
    assert preprocessing.resize == round(size * 8 / 7)


def test_dropout_and_hidden_layers_stand_before_the_classifier() -> None:
    model = small(hidden=[6], dropout=1.0)
    assert [type(layer).__name__ for layer in model.classifier] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (model.classifier[0].in_features, model.classifier[0].out_features) == (36, 6)
    plain = small(dropout=1.0).train()
    logits = plain(x64)
    torch.testing.assert_close(logits, plain.classifier.bias.expand_as(logits))  # everything is dropped


def test_backbone_weights_of_a_file_and_pretrained_ones_exclude_each_other() -> None:
    with pytest.raises(ZooError, match="not both"):
        small(pretrained_backbone=True, backbone_weights={})


def test_a_new_classifier_forgets_the_old_classes() -> None:
    model = small()
    model.class_names, model.class_descriptions, model.record = ["a"] * 5, ["A"] * 5, object()
    model.reset_classifier(3)
    assert (model.class_names, model.class_descriptions, model.record) == (None, None, None)


def test_without_fusion_the_class_token_is_left_out() -> None:
    model = create_model("timm:test_vit", "isqrt", 4, dim=8).eval()
    f = torch.rand(1, model.backbone.num_features, 101, 1)
    changed = f.clone()
    changed[:, :, 0] = 0
    assert torch.equal(model.forward_head(f), model.forward_head(changed))


def test_gsop_blocks_are_inserted_by_configuration() -> None:
    model = create_model("resnet18", "isqrt", 4, dim=8, blocks={"gsop": {"stages": [1, 2, 3]}}).eval()
    plain = create_model("resnet18", "isqrt", 4, dim=8)
    assert len(model.state_dict()) > len(plain.state_dict())
    assert GCPNet.from_config(model.config).state_dict().keys() == model.state_dict().keys()
    assert model(x64).shape == (2, 4)


def test_one_position_is_refused_by_second_order_heads_only() -> None:
    tiny = torch.rand(2, 3, 32, 32)
    with pytest.raises(ZooError, match="one position.*larger images"):
        create_model("resnet18", "isqrt", 2, dim=8, last_stride=2).eval()(tiny)
    assert create_model("resnet18", "gap", 2).eval()(tiny).shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "isqr"}, "did you mean isqrt"),
        ({"head_args": {"iteration": 3}}, "did you mean iterations"),
        ({"head_args": {"iterations": 0}}, "at least 1"),
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ({"num_classes": True}, "num_classes must be .*, got True"),
        ({"num_classes": 2.0}, "num_classes must be .*, got 2.0"),
        ({"num_classes": None}, "num_classes must be .*, got None"),
        ({"backbone": None}, "backbone must be a name, got None"),
        ({"head": ["isqrt"]}, "head must be a name"),
        ({"fusion": "product"}, "unknown fusion"),
        ({"backbone_args": {"checkpoint_path": "x.pth"}}, "would read other files"),
        ({"dim": "big"}, "dim must be a positive number .*, got 'big'"),
        ({"dim": 0}, "dim must be"),
        ({"dim": True}, "dim must be .*, got True"),
        ({"dim": -8}, "dim must be"),
        ({"dim": []}, "dim must be"),
        ({"dim": [8, 0]}, "dim must be"),
        ({"dim": 8.5}, "dim must be"),
        ({"hidden": 6}, "hidden must be a list of positive sizes, got 6"),
        ({"hidden": "64"}, "hidden must be"),
        ({"hidden": [6, 0]}, "hidden must be"),
        ({"hidden": [True]}, "hidden must be"),
        ({"dropout": 1.5}, "dropout must be a number between 0 and 1, got 1.5"),
        ({"dropout": float("nan")}, "dropout must be"),
        ({"dropout": "0.5"}, "dropout must be .*, got '0.5'"),
        ({"head_args": [3]}, "head_args must be a mapping .*, got"),
        ({"head_args": {3: 1}}, "head_args must be"),
        ({"blocks": "gsop"}, "blocks must be a mapping"),
        ({"backbone_args": "norm_layer"}, "backbone_args must be a mapping"),
        ({"backbone_args": ["x"]}, "backbone_args must be a mapping"),
        ({"backbone_args": {"until": "layer1"}}, "backbone_args must be .* got 'until'"),
        ({"backbone_args": {"widths": 2}}, "'resnet18' refuses its arguments .*widths"),
        ({"backbone_args": {"width_per_group": "wide"}}, "'resnet18' refuses its arguments .*width_per_group"),
        ({"blocks": {"gsopp": {}}}, "unknown block"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        small(**arguments)


def test_an_unknown_configuration_key_is_named() -> None:
    with pytest.raises(ZooError, match="did you mean num_classes"):
        GCPNet.from_config({"backbone": "resnet18", "num_class": 3})
    with pytest.raises(ZooError, match="at least 'backbone'"):
        GCPNet.from_config({"head": "gap"})
    with pytest.raises(ZooError, match="got none for 'num_classes'"):
        GCPNet.from_config({"backbone": "resnet18"})


def test_a_model_can_be_copied_compiled_and_trained_in_half_precision() -> None:
    model = copy.deepcopy(small()).train()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        loss = compiled(x64).float().logsumexp(1).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_importing_the_package_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import gcpzoo, sys; gcpzoo.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_names_what_it_has() -> None:
    assert {"load", "create_model", "list_heads", "list_models"} <= set(dir(gcpzoo))
    with pytest.raises(AttributeError, match="attribute.*nothing"):
        _ = gcpzoo.nothing


def test_auto_reduces_only_where_there_are_more_channels() -> None:
    assert create_model("resnet18", "isqrt", 3).config["dim"] == 256
    assert create_model("resnet18", "isqrt", 3, until="layer3").config["dim"] is None
    assert create_model("resnet18", "gap", 3).config["dim"] is None
