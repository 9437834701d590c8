"""Probes of frozen features: linear, nearest-neighbor and SVM protocols, and few-shot episodes."""

from gcpzoo.experiments.probe.features import Features, class_folders, extract
from gcpzoo.experiments.probe.few_shot import few_shot
from gcpzoo.experiments.probe.protocols import PROTOCOLS, ProbeResult, probe

__all__ = ["PROTOCOLS", "Features", "ProbeResult", "class_folders", "extract", "few_shot", "probe"]
