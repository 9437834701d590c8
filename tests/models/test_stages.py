"""The maps of a backbone's stages."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.models import Backbone, FeatureMaps

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "timm:test_resnet", "timm:test_convnext"])
def test_each_map_has_the_channels_and_the_size_that_the_table_says(name: str) -> None:
    maps = gcpzoo.create_model(name, features_only=True).eval()
    with torch.no_grad():
        found = maps(X)
    assert len(found) == len(maps.feature_info) >= 3
    for f, info, channels in zip(found, maps.feature_info, maps.channels()):
        assert f.shape[1] == info["num_chs"] == channels
        assert abs(f.shape[2] - 64 / info["reduction"]) <= 1
    assert all(a["reduction"] < b["reduction"] for a, b in zip(maps.feature_info, maps.feature_info[1:]))


def test_the_maps_of_a_trained_model_are_those_inside_it(small: gcpzoo.GCPNet) -> None:
    maps = FeatureMaps(small.backbone)
    assert [info["module"] for info in maps.feature_info] == ["relu", "layer1"]
    seen = []
    handle = small.backbone.relu.register_forward_hook(lambda *values: seen.append(values[2].clone()))  # type: ignore[operator,union-attr]
    with torch.no_grad():
        first, last = maps(X)
        handle.remove()
        torch.testing.assert_close(last, small.forward_features(X))
    torch.testing.assert_close(first, seen[0])


def test_a_network_of_tokens_has_no_stages() -> None:
    with pytest.raises(ZooError, match="sovit_drop_tiny has no stages"):
        gcpzoo.create_model("sovit_drop_tiny", features_only=True)
    swin = Backbone(OrderedDict(features=nn.Conv2d(3, 8, 3, 2), permute=nn.Identity()))  # its maps are (B, h, w, C)
    with pytest.raises(ZooError, match="has no stages"):
        FeatureMaps(swin)
