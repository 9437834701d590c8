"""``--resume``: which checkpoint a stopped training goes on from, and whether the command is still the same."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

from gcpzoo.cli.outputs import holds_training
from gcpzoo.data.seen import files_of_splits
from gcpzoo.errors import ZooError
from gcpzoo.hub.run_results import read_report
from gcpzoo.limits import read_yaml
from gcpzoo.models.weights import open_file
from gcpzoo.paths import remove_leftovers, write_text
from gcpzoo.training.checkpoints import FOLDER, FORMER, LAST, is_whole
from gcpzoo.training.options import CONFIG, WITHOUT_EFFECT, flatten, is_of

CHANGEABLE = (*WITHOUT_EFFECT, "trainer.max_epochs", "trainer.devices", "trainer.num_nodes")
"""Options that do not change what a training computes, and its length."""
ROOT = "data.init_args.root"
"""The data's folder, which may have moved where the checkpoint knows its files: they are compared themselves."""


def find_checkpoint(folder: Path) -> Path | None:
    """Find the newest whole checkpoint of a run; a damaged one is named on the way. ``None``: there is none yet.

    Raises:
        ZooError: if there are checkpoints, but all of them are damaged.
    """
    for place in (folder, folder / FOLDER):
        rank_zero_only(remove_leftovers)(place)
    damaged: list[Path] = []
    for name in (LAST, FORMER):
        path = folder / FOLDER / name
        if not path.exists():
            continue
        if is_whole(path):
            if damaged:
                print(f"gcpzoo: {damaged[0]} is damaged; going on from {path}", file=sys.stderr)
            return path
        damaged.append(path)
    if damaged:
        raise ZooError(
            f"{' and '.join(map(str, damaged))} {'is' if len(damaged) == 1 else 'are'} damaged, and there is no other "
            "checkpoint: give another --output to start again"
        )
    return None


def is_trained(checkpoint: Path, trainer: Mapping[str, Any]) -> bool:
    """Say whether the training of a checkpoint has reached its end, by these options of the trainer."""
    content = open_file(checkpoint)
    epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    most_epochs, most_steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    stopped = any(isinstance(s, Mapping) and s.get("stopped_epoch") for s in content["callbacks"].values())
    return bool(
        stopped  # by EarlyStopping
        or (most_epochs is not None and 0 <= most_epochs <= epochs)
        or 0 <= most_steps <= content["global_step"]
    )


def is_finished(folder: Path, checkpoint: Path, evaluate: bool) -> bool:
    """Say whether the report of a training whose last epoch is done is complete."""
    report = read_report(folder)
    epochs = open_file(checkpoint)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return report.get("fit", {}).get("epochs") == epochs and ("test" in report or not evaluate)


def check_same(folder: Path, checkpoint: Path | None, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse to go on with a training by a command that would train something else.

    Args:
        folder: of the run.
        checkpoint: that it goes on from; null: there is none yet.
        config: options of this command.
        defaults: of all options; they stand for what an older version, which wrote the run's file, did not have.

    Raises:
        ZooError: if an option differs from that of the run, but for its length, its devices, its output, and the
            folder of the data where the checkpoint knows their files.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ZooError(f"{path} is missing, so --resume cannot know the run's options; use --ckpt_path instead")
    try:
        before = flatten(read_yaml(path))
    except ValueError:
        raise ZooError(f"{path} is not YAML; use --ckpt_path instead of --resume") from None
    now, default = flatten(config), flatten(defaults)
    if before.get(ROOT) != now.get(ROOT) and checkpoint and files_of_splits(open_file(checkpoint)):
        now[ROOT] = before.get(ROOT)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, default.get(key)), now.get(key)
        if old != new and not is_of(key, CHANGEABLE):
            raise ZooError(
                f"the run in {folder} has {key}={old!r}, this command {new!r}: --resume goes on with the same options; "
                "give another --output for another run"
            )


class RecordConfig(SaveConfigCallback):
    """Write the options of a run into its folder, as they were asked for: what ``--resume`` compares with.

    Args:
        asked: the options; null: those that the run was built from.
    """

    def __init__(self, parser: Any, config: Namespace, asked: Namespace | None = None) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.asked = asked or config

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit" and holds_training(Path(trainer.default_root_dir)):
            return  # its options are those of the training
        write_text(Path(trainer.default_root_dir) / CONFIG, self.parser.dump(self.asked, skip_unset=False))
