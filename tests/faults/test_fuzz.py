"""Files of others, made up at random: only documented errors, no traceback, no import, no other file opened.

``GCPZOO_FUZZ_CASES`` is the number of cases in all (120 by default, thousands in ``make faults``), shared by the kinds
of files. The cases are the same in every run: hypothesis derives them from the tests themselves.
"""

from __future__ import annotations

import copy
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import save_local
from gcpzoo.hub.records import get_record, parse_record
from gcpzoo.hub.run_checkpoint import describe_run
from gcpzoo.hub.run_results import run_results
from gcpzoo.training import ClassificationTask

KINDS = 7
CASES = max(1, int(os.environ.get("GCPZOO_FUZZ_CASES", "120")) // KINDS)
SLOWEST = 20  # seconds of a case, on a busy machine
SECRET = Path(tempfile.mkdtemp()) / "secret.pth"
fuzz = settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HOSTILE = [
    str(SECRET), f"file://{SECRET}", "http://127.0.0.1:9/x", "hf-hub:owner/evil", "../../etc/passwd", "os.system",
    "antigravity.fly", {"class_path": "antigravity.Fly", "init_args": {}}, True, None, "", "timm:resnet18", "\x00",
    "IMAGENET1K_V1", 0, -1, 10**6, 10**9, 2**63, 2**70, 10**400, 1e300, 1e-300, 0.5, [], {}, [[]], [10**6] * 4,
    [1] * 200_000, "a" * 10_000, float("nan"), float("inf"), {"gsop": {"stages": [1] * 100}}, {"file": str(SECRET)},
]  # fmt: skip
KEYS = [
    "backbone", "head", "num_classes", "dim", "head_args", "last_stride", "until", "fusion", "hidden", "dropout",
    "blocks", "backbone_args", "iterations", "root", "sketch_dim", "depth", "embed_dim", "img_size", "checkpoint",
    "checkpoint_path", "pretrained", "pretrained_cfg", "backbone_weights", "weights", "cache_dir", "class_path",
    "model", "class_names", "preprocessing", "about", "metrics", "__class__", "<<", "width_per_group", "layers",
    "resize", "crop",
]  # fmt: skip
scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(HOSTILE)
values = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner),
    max_leaves=8,
)
changes = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "add", "drop"]), values), max_size=3)
names = st.sampled_from(KEYS)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside nested mappings and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [p for key, value in items for p in [(*path, key), *places(value, (*path, key))]]


def mutate(content: Any, edits: list[tuple[int, str, Any]], name: str) -> Any:
    """Change, add and drop values of a valid content."""
    content = copy.deepcopy(content)
    for where, kind, drawn in edits:
        value = copy.deepcopy(drawn)  # an object that is drawn twice would be put into itself
        paths = places(content)
        if not paths:
            return content
        *way, last = paths[where % len(paths)]
        target = content
        for key in way:
            target = target[key]
        if kind == "set":
            target[last] = value
        elif kind == "drop":
            del target[last]
        elif isinstance(target[last], dict):
            target[last][name] = value
        elif isinstance(target, dict):
            target[name] = value
    return content


def test_a_content_never_holds_itself() -> None:
    drawn: dict[str, Any] = {"a": 1}
    changed = mutate({"b": {}}, [(0, "set", drawn), (1, "set", drawn)], "c")
    assert changed == {"b": {"a": {"a": 1}}}


class Watch:
    """Notes the files that are opened, the connections, and the processes that are started."""

    def __init__(self) -> None:
        self.active, self.seen = False, []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        name = str(arguments[0]) if arguments else ""
        if event == "open" and str(SECRET.parent) in name:
            self.seen.append(f"opened {name}")
        elif event in ("socket.connect", "subprocess.Popen", "os.system") or (event == "import" and "antigrav" in name):
            self.seen.append(f"{event} {name}")


WATCH = Watch()


def only_documented(act: Callable[[], Any]) -> None:
    """Run on a hostile file: it works or raises ``ZooError``, of one short line, in time, and touches nothing else."""
    start, WATCH.seen, WATCH.active = time.monotonic(), [], True
    try:
        act()
    except ZooError as error:
        message = str(error)
    else:
        message = ""
    finally:
        WATCH.active = False
    assert "\n" not in message
    assert time.monotonic() - start < SLOWEST
    assert not WATCH.seen


@pytest.fixture(scope="module", autouse=True)
def secret() -> Iterator[None]:
    torch.save({"weight": torch.zeros(1)}, SECRET)
    yield
    SECRET.unlink()


@pytest.fixture(scope="module")
def model(small: gcpzoo.GCPNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's folder, whose weights are not pinned."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    save_local(small, folder, {"licence": "MIT"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "weights_sha256": None}))
    return folder


@pytest.fixture(scope="module")
def run(small: gcpzoo.GCPNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a checkpoint and its report."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    task = ClassificationTask(3, backbone="resnet18", head="isqrt", dim=8, until="layer1")
    state = {f"model.{k}": v for k, v in small.state_dict().items()}
    content = {"state_dict": state, "gcpzoo": describe_run(small, None), "hyper_parameters": dict(task.hparams)}
    content |= {"pytorch-lightning_version": lightning.__version__, "epoch": 1, "global_step": 2, "loops": {}}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    report = {"model": small.config, "data": {"data": "ImageFolder", "images": {"train": 18}}, "seed": 0}
    report |= {"fit": {"epochs": 2}, "test": {"top1": 0.5, "top5": 1.0, "per_class": 0.5}, "hardware": "CPU"}
    (folder / "metrics.json").write_text(json.dumps(report))
    return folder


@fuzz
@given(changes, names)
def test_a_changed_config_json_loads_or_is_refused(model: Path, edits: Any, name: str) -> None:
    original = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps(mutate(json.loads(original), edits, name)), errors="replace")
    try:
        only_documented(lambda: gcpzoo.load(model))
    finally:
        (model / "config.json").write_text(original)


@fuzz
@given(st.binary(max_size=200), st.integers(0, 10**6), st.booleans())
def test_a_damaged_config_json_loads_or_is_refused(model: Path, junk: bytes, where: int, insert: bool) -> None:
    original = (model / "config.json").read_bytes()
    place = where % len(original)
    (model / "config.json").write_bytes(original[:place] + junk + original[place + (0 if insert else len(junk)) :])
    try:
        only_documented(lambda: gcpzoo.load(model))
    finally:
        (model / "config.json").write_bytes(original)


@fuzz
@given(changes, names, st.text(max_size=30), st.integers(0, 10**6))
def test_a_changed_record_is_read_or_refused(edits: Any, name: str, junk: str, where: int) -> None:
    record = get_record("resnet18_isqrt.digits")
    content = {key: value for key, value in vars(record).items() if value is not None}
    text = yaml.safe_dump(mutate(content, edits, name))
    place = where % len(text)
    only_documented(lambda: parse_record(text, record.name))
    only_documented(lambda: parse_record(text[:place] + junk + text[place:], record.name))


@fuzz
@given(changes, st.sampled_from(["dtype", "shape", "data_offsets", "x"]), st.sampled_from([0, 0, 0, -1, 7, 2**40]))
def test_a_changed_safetensors_header_loads_or_is_refused(model: Path, edits: Any, name: str, more: int) -> None:
    original = (model / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", original[:8])[0]
    header = json.dumps(mutate(json.loads(original[8 : 8 + size]), edits, name)).encode(errors="replace")
    length = struct.pack("<Q", max(0, len(header) + more))
    (model / "model.safetensors").write_bytes(length + header + original[8 + size :])
    try:
        only_documented(lambda: gcpzoo.load(model))
    finally:
        (model / "model.safetensors").write_bytes(original)


@fuzz
@given(changes, names)
def test_a_changed_metrics_json_is_read_or_refused(run: Path, small: gcpzoo.GCPNet, edits: Any, name: str) -> None:
    original = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text(json.dumps(mutate(json.loads(original), edits, name)), errors="replace")
    try:
        only_documented(lambda: run_results(run / "checkpoints" / "last.ckpt", small.config))
    finally:
        (run / "metrics.json").write_text(original)


def storable(value: Any) -> bool:
    """Whether torch can write it: text that no encoding takes cannot be pickled."""
    try:
        repr(value).encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, ValueError):
        return False
    return True


@fuzz
@given(changes, names, st.sampled_from(["load", "task"]))
def test_a_changed_checkpoint_loads_or_is_refused(run: Path, edits: Any, name: str, way: str) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    edits = [edit for edit in edits if storable(edit[2])]
    for part in ("gcpzoo", "hyper_parameters", "state_dict"):
        content[part] = mutate(dict(content[part]), edits, name)
    path = run / "changed.ckpt"
    torch.save(content, path)
    act = gcpzoo.load if way == "load" else ClassificationTask.load_from_checkpoint
    only_documented(lambda: act(path))


@fuzz
@given(st.binary(min_size=1, max_size=64), st.integers(0, 10**9), st.booleans())
def test_a_damaged_checkpoint_is_refused_or_loads(run: Path, junk: bytes, where: int, early: bool) -> None:
    original = (run / "checkpoints" / "last.ckpt").read_bytes()
    place = where % (4000 if early else len(original))
    path = run / "damaged.ckpt"
    path.write_bytes(original[:place] + junk + original[place + len(junk) :])
    only_documented(lambda: gcpzoo.load(path))
