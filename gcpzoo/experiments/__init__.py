"""Experiments on trained models: checking a checkpoint against its record."""

from gcpzoo.experiments.verify import Check, verify

__all__ = ["Check", "verify"]
