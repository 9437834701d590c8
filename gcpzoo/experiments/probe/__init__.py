"""Probes of frozen features: linear, nearest-neighbor and SVM protocols, and few-shot episodes."""

from gcpzoo.experiments.probe.features import Features, class_folders, extract
from gcpzoo.experiments.probe.few_shot import check_episodes, few_shot
from gcpzoo.experiments.probe.protocols import PROTOCOLS, ProbeResult, check_seed, probe

__all__ = [
    "PROTOCOLS",
    "Features",
    "ProbeResult",
    "check_episodes",
    "check_seed",
    "class_folders",
    "extract",
    "few_shot",
    "probe",
]
