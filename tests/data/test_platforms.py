"""Systems that cannot say which cores a process may use."""

from __future__ import annotations

import os

import pytest

from gcpzoo.data import Digits


def test_without_affinities_there_is_a_worker_for_each_core_up_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cores, workers in ((4, 4), (64, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert Digits(workers=None).workers == workers
