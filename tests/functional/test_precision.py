"""The arithmetic of the heads, and what the environment may ask of the Triton kernel."""

from __future__ import annotations

import pytest
import torch
from module_tester import noise

from gcpzoo.errors import ZooError
from gcpzoo.functional import newton_schulz_sqrt
from gcpzoo.functional.precision import at_least_float32, triton_precision


@pytest.mark.parametrize("value", ["1", "true", "ieee", "TF32 ", "tf16"])
@pytest.mark.parametrize("d", [4, 80])
def test_an_unknown_precision_in_the_environment_is_refused_on_every_device(
    value: str, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCPZOO_TRITON", value)
    with pytest.raises(ZooError, match="unknown precision in GCPZOO_TRITON .*; available: tf32x3, bf16x3, tf32"):
        newton_schulz_sqrt(noise(2, d, 100))


@pytest.mark.parametrize("value", ["tf32x3", "bf16x3", "tf32"])
def test_a_known_precision_changes_nothing_on_the_cpu(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(2, 4, 9)
    plain = newton_schulz_sqrt(x)
    monkeypatch.setenv("GCPZOO_TRITON", value)
    assert triton_precision() == value
    assert torch.equal(newton_schulz_sqrt(x), plain)


def test_half_precision_is_widened_and_double_kept() -> None:
    kept = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == kept.get(dtype, dtype)
