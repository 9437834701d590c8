"""Names of torchvision and timm to feature maps, cut and changed as asked."""

from __future__ import annotations

import pytest
import torch

from gcpzoo.errors import ZooError
from gcpzoo.models import Backbone, create_backbone, find_modules, list_backbones

FAMILIES = {
    "alexnet": (256, 6), "vgg11_bn": (512, 7), "resnet18": (512, 7), "resnext50_32x4d": (2048, 7),
    "densenet121": (1024, 7), "inception_v3": (2048, 5), "googlenet": (1024, 7), "mobilenet_v2": (1280, 7),
    "mobilenet_v3_small": (576, 7), "shufflenet_v2_x0_5": (1024, 7), "efficientnet_b0": (1280, 7),
    "regnet_y_400mf": (440, 7), "convnext_tiny": (768, 7), "swin_t": (768, 7), "squeezenet1_1": (512, 13),
    "mnasnet0_5": (1280, 7), "maxvit_t": (512, 7),
}  # fmt: skip


@torch.no_grad()
def shape(backbone: Backbone, size: int = 224) -> tuple[int, ...]:
    return tuple(backbone.eval()(torch.zeros(1, 3, size, size)).shape)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_gives_a_map(name: str) -> None:
    channels, side = FAMILIES[name]
    backbone = create_backbone(name)
    assert backbone.num_features == channels
    assert shape(backbone) == (1, channels, side, side)


def test_a_vision_transformer_gives_its_class_token_first() -> None:
    backbone = create_backbone("vit_b_32")
    assert (backbone.num_prefix_tokens, shape(backbone)) == (1, (1, 768, 50, 1))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "swin_t", "vit_b_32"])
def test_features_are_those_of_the_whole_network(name: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    net = models.get_model(name, weights=None).eval()
    backbone = create_backbone(name, weights=net.state_dict(), last_stride=2 if name == "resnet18" else None)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        f = backbone.eval()(x)
        if name == "vit_b_32":
            logits = net.heads(f[:, :, 0, 0])
        else:
            last = next(getattr(net, n) for n in ("fc", "classifier", "head") if hasattr(net, n))
            logits = last(f.mean((2, 3)))
        # the mean is taken in another order than the network's own
        torch.testing.assert_close(logits, net(x), rtol=1e-4, atol=1e-5)


def test_all_names_of_torchvision_are_listed() -> None:
    names = list_backbones()
    assert {"alexnet", "vgg19_bn", "resnet152", "vit_h_14", "swin_v2_b", "regnet_y_128gf", "convnext_large"} <= set(
        names
    )
    assert len(list_backbones(timm=True)) > len(names) + 500


@pytest.mark.parametrize(
    ("name", "side", "prefix"),
    [
        ("timm:resnet10t", 6, 0),
        ("timm:vit_tiny_patch16_224", None, 1),
        ("timm:deit_tiny_distilled_patch16_224", None, 2),
        ("timm:swin_s3_tiny_224", 7, 0),
        ("timm:convnext_atto", 7, 0),
    ],
)
def test_timm_maps_and_tokens_come_in_one_layout(name: str, side: int | None, prefix: int) -> None:
    backbone = create_backbone(name)
    c = backbone.num_features
    expected = (1, c, 14 * 14 + prefix, 1) if side is None else (1, c, side, side)
    assert backbone.num_prefix_tokens == prefix
    assert shape(backbone, backbone.input_size) == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "timm:resnet18", "timm:resnet26d", "timm:resnet50"])
def test_last_stride_1_keeps_the_resolution_without_dilation(name: str) -> None:
    backbone = create_backbone(name, last_stride=1)
    assert shape(backbone, 64)[2:] == (4, 4)
    assert all(m.dilation == (1, 1) for m in backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert shape(create_backbone(name, last_stride=2), 64)[2:] == (2, 2)


def test_last_stride_1_drops_the_last_pooling_of_a_vgg() -> None:
    assert shape(create_backbone("vgg11", last_stride=1), 64)[2:] == (4, 4)


@pytest.mark.parametrize(
    ("name", "until", "expected"),
    [
        ("resnet18", "layer3", (256, 14)),
        ("mobilenet_v2", "features.13", (96, 14)),
        ("densenet121", "features.transition2", (256, 14)),
        ("swin_t", "features.5", (384, 14)),
        ("timm:resnet18", "layer3", (256, 14)),
    ],
)
def test_a_backbone_can_be_cut_after_a_stage(name: str, until: str, expected: tuple[int, int]) -> None:
    channels, side = expected
    backbone = create_backbone(name, until=until)
    assert backbone.num_features == channels
    assert shape(backbone) == (1, channels, side, side)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "did you mean resnet50"),
        ({"name": "timm:resnet5"}, "unknown backbone 'timm:resnet5'"),
        ({"name": "resnet18", "until": "layer5"}, "did you mean layer"),
        ({"name": "timm:resnet18", "until": "layer5"}, "did you mean layer"),
        ({"name": "mobilenet_v2", "last_stride": 1}, "no last stage whose stride could be 1"),
        ({"name": "resnet18", "last_stride": 1, "until": "layer3"}, "cuts off"),
        ({"name": "resnet18", "last_stride": 3}, "last_stride must be 1, 2 or None, got 3"),
        ({"name": "resnet18", "last_stride": 3, "until": "layer3"}, "last_stride must be 1, 2 or None, got 3"),
        ({"name": "resnet18", "until": 3}, "until must be the name of a stage, got 3"),
        ({"name": "resnet18", "weights": 3}, "weights must be a file or a state dict, got 3"),
        ({"name": "resnet18", "widths": 2}, "refuses its arguments"),
        ({"name": "resnet18", "pretrained": True, "weights": "x.pth"}, "not both"),
        ({"name": "vit_b_16", "until": "encoder"}, "cannot be cut"),
        ({"name": "timm:crossvit_9_240"}, "not one feature map"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message) as error:
        create_backbone(**arguments)
    assert "\n" not in str(error.value)


def test_without_network_pretrained_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ZooError, match="could not be fetched .*backbone_weights"):
        create_backbone("resnet18", pretrained=True)


@pytest.mark.parametrize(
    ("name", "until", "path", "expected"),
    [
        ("resnet18", None, "layer1", "layer1"),
        ("resnet18", None, "layer1.0.conv2", "layer1.0.conv2"),
        ("vgg11", None, "features.3", "features.3"),
        ("vgg11", None, "features", "features"),
        ("mobilenet_v2", None, "features.13.conv.1", "features.13.conv.1"),
        ("timm:test_resnet", None, "layer2.0", "net.layer2.0"),
        ("timm:test_resnet", None, "net.layer2.0", "net.layer2.0"),
        ("timm:test_vit", None, "blocks.2", "net.blocks.2"),
        ("timm:test_vit", None, "patch_embed", "net.patch_embed"),
        ("timm:test_convnext", None, "stages.1", "net.stages.1"),
        ("timm:test_convnext", "stages.1", "stages.1", "net.stages_1"),
    ],
)
def test_a_module_is_found_by_its_path_in_every_library(name: str, until: str, path: str, expected: str) -> None:
    backbone = create_backbone(name, until=until)
    assert find_modules(backbone, [path]) == [backbone.get_submodule(expected)]


def test_the_beginning_of_a_path_stands_for_the_outermost_modules_below() -> None:
    cut = create_backbone("timm:test_convnext", until="stages.1")
    assert find_modules(cut, ["stages"]) == [cut.net.stages_0, cut.net.stages_1]


def test_modules_come_in_the_order_asked_for_and_once() -> None:
    backbone = create_backbone("resnet18")
    found = find_modules(backbone, ["layer2", "conv1", "layer2"])
    assert found == [backbone.layer2, backbone.conv1]


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("resnet18", "layer5", "unknown module of resnet18 'layer5': did you mean layer"),
        ("resnet18", "layer1.0.conv3", "did you mean layer1.0.conv"),
        ("resnet18", "layer", "unknown module"),
        ("resnet18", "", "unknown module"),
        ("timm:test_vit", "block.2", "did you mean blocks.2"),
        ("vgg11", "feature", "did you mean features"),
    ],
)
def test_a_path_that_names_no_module_is_answered_with_the_nearest(name: str, path: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        find_modules(create_backbone(name), [path])


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_networks_of_the_old_normalization_keep_it(name: str) -> None:
    backbone = create_backbone(name)
    assert (backbone.mean, backbone.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert create_backbone("resnet18").mean == (0.485, 0.456, 0.406)
    assert create_backbone("resnet18").std == (0.229, 0.224, 0.225)
    assert backbone.input_size == (299 if name == "inception_v3" else 224)


def test_a_timm_network_keeps_the_normalization_and_size_of_its_own_configuration() -> None:
    import timm

    for name in ("vit_tiny_patch16_224", "test_vit", "resnet10t"):
        backbone, known = create_backbone(f"timm:{name}"), timm.get_pretrained_cfg(name)
        assert (backbone.mean, backbone.std) == (known.mean, known.std)
        assert backbone.input_size == known.input_size[-1]
    assert create_backbone("timm:vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"width_per_group": "wide"}),
        ("mobilenet_v2", {"width_mult": None}),
        ("resnet18", {"replace_stride_with_dilation": 3}),
        ("vgg11", {"dropout": "high"}),
    ],
)
def test_a_value_that_the_constructor_refuses_is_named(name: str, arguments: dict) -> None:
    with pytest.raises(ZooError, match=f"'{name}' refuses its arguments .*{next(iter(arguments))}"):
        create_backbone(name, **arguments)


@pytest.mark.parametrize("until", [None, "layer1"])
def test_arguments_reach_timms_constructor_whole_or_cut(until: str | None) -> None:
    backbone = create_backbone("timm:resnet18", until=until, stem_type="deep", stem_width=8)
    assert backbone.state_dict()["net.conv1.0.weight"].shape[0] == 8
