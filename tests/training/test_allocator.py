"""Memory that is kept is not fetched again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SMALLER_TENSOR = """
import resource, sys
import torch
from gcpzoo.training.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.ones(25_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_smaller_tensor_takes_the_pages_of_a_larger_one() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SMALLER_TENSOR, how], capture_output=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < faults["give back"] / 10, faults
