"""fit, validate, test and predict: LightningCLI over ClassificationTask and the data modules."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from gcpzoo.cli.callbacks import add_best_options, listed, run_callbacks, suggest_rate
from gcpzoo.cli.generations import SeveralTrainings
from gcpzoo.cli.mistakes import write_mistakes
from gcpzoo.cli.outputs import (
    OUTPUT,
    hold,
    make_output,
    output_folder,
    print_summary,
    set_former_log_aside,
    write_predictions,
)
from gcpzoo.cli.parser import typed_options
from gcpzoo.cli.resume import check_same, find_checkpoint, is_finished, is_trained
from gcpzoo.cli.seen import find_run, warn_of_seen
from gcpzoo.data import ImageDataModule, ImageFolder
from gcpzoo.data.classes import count_classes
from gcpzoo.data.modules import data_modules
from gcpzoo.data.scan import refuse_inside
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.hub.run_checkpoint import RunCheckpoint, read_run_checkpoint
from gcpzoo.hub.run_results import REPORT
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.weights import misfit
from gcpzoo.training import ClassificationTask, RunCheckpoints, TestPredictions
from gcpzoo.training.checkpoints import WholeCheckpointIO
from gcpzoo.training.network import START_OPTIONS
from gcpzoo.training.options import CONFIG
from gcpzoo.training.predictions import gather_in_order
from gcpzoo.training.upgrade import upgrade_hyper_parameters

GROUPS = ("optimizer", "schedule", "distillation")
NETWORK_OPTIONS = (*(key for key in GCPNet.CONFIG_KEYS if key != "num_classes"), *START_OPTIONS)


class ZooCLI(LightningCLI):
    """``gcpzoo fit|validate|test|predict``: one folder a run, the final epoch evaluated, everything recorded.

    >>> ZooCLI.subcommands()["test"] >= {"model", "datamodule"}
    True
    """

    run_checkpoint: RunCheckpoint | None = None
    held: BinaryIO | None = None
    trained = finished = False
    fit_parser: LightningArgumentParser | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the one that the command line asks for: the parser of each takes a tenth of a second to build."""
        every = LightningCLI.subcommands()
        return {name: skip for name, skip in every.items() if name in sys.argv[1:2]} or every

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        data_modules()  # the parser knows those that are imported by their short names
        return super().init_parser(**{**kwargs, "exit_on_error": True})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.fit_parser = self.fit_parser or parser  # Lightning's first subcommand is fit
        parser.add_argument("--output", type=str | None, default=None, help="folder of the run; default: runs/NAME")
        parser.add_argument(
            "--evaluate", type=bool, default=True, help="after fit, evaluate the final epoch on the test split"
        )
        parser.add_argument(
            "--resume", type=bool, nargs="?", const=True, default=False,
            help="go on with the stopped run in --output; where there is none yet, start",
        )  # fmt: skip
        parser.add_argument(
            "--overwrite", type=bool, nargs="?", const=True, default=False,
            help="let an evaluation replace the results of the training in --output (validate, test, predict)",
        )  # fmt: skip
        parser.add_argument(
            "--generations", type=int, default=1,
            help="train so many networks, each with the one before as teacher, and evaluate their ensemble (fit)",
        )  # fmt: skip
        add_best_options(parser)
        parser.add_class_arguments(RunCheckpoints, "checkpoint")
        parser.link_arguments("data", "model.num_classes", compute_fn=count_classes, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and keep ``--ckpt_path`` from LightningCLI, which would read hyper-parameters of one format only."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        self.ckpt_path: str | None = config.get("ckpt_path")
        config["ckpt_path"] = None
        self.typed = typed_options(sys.argv[1:])

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if self.subcommand != "fit" and "generations" in self.typed:
            raise ZooError(f"--generations belongs to 'gcpzoo fit', got it with {self.subcommand}: leave it out")
        if self.subcommand == "fit" and config.generations != 1:
            if self.ckpt_path:
                raise ZooError("--ckpt_path belongs to one training: leave it out, or --generations")
            raise SeveralTrainings(config)
        if "model.checkpoint" in self.typed and config.model.checkpoint:  # it replaces the network of a config file
            _reset(config.model, [key for key in NETWORK_OPTIONS if f"model.{key}" not in self.typed])
        if config.resume:
            self._find_run(config)
        config["ckpt_path"] = self.ckpt_path
        if self.ckpt_path:
            self._restore_network(self.ckpt_path, config.model)
        elif self.subcommand != "fit" and not config.model.checkpoint:
            raise ZooError("which model? give --model NAME (see 'gcpzoo list'), or --ckpt_path FILE of a run")
        if self.subcommand != "fit":
            self._name_classes(config)
        if self.subcommand == "predict" and config.trainer.devices == "auto":
            config.trainer.devices = 1
        if "verbose" in config:
            config.verbose = False  # the summary says it in one line
        self.output = output_folder(config, str(self.subcommand))
        os.environ[OUTPUT] = str(self.output)

    def _find_run(self, config: Namespace) -> None:
        """Take the checkpoint of the run that ``--resume`` goes on with, if the options are still the same."""
        if self.subcommand != "fit" or self.ckpt_path or not config.output:
            raise ZooError("--resume belongs to 'gcpzoo fit … --output DIR', without --ckpt_path")
        folder = Path(config.output)
        self.held = hold(folder)
        checkpoint = find_checkpoint(folder)
        if checkpoint or (folder / CONFIG).is_file() or (folder / REPORT).is_file():
            asked = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[self.subcommand]
            assert self.fit_parser
            check_same(folder, checkpoint, asked, self.fit_parser.get_defaults().as_dict())
            self.save_config_kwargs = {"asked": config.clone()}
        if checkpoint:
            self.ckpt_path = str(checkpoint)
            self.trained = is_trained(checkpoint, config.trainer)
            self.finished = self.trained and is_finished(folder, checkpoint, config.evaluate)

    def _restore_network(self, path: str, model: Namespace) -> None:
        """Rebuild the network of ``--ckpt_path`` from its own hyper-parameters.

        They replace those of a config file, with a warning; other ones that were typed are refused.
        """
        sources = [key for key in START_OPTIONS if model[key] and f"model.{key}" in self.typed]
        if self.subcommand != "fit" and sources:  # a resumed fit may repeat its first command line
            raise ZooError(f"{path} has weights of its own: leave out model.{sources[0]}")
        self.run_checkpoint = read_run_checkpoint(path)
        stored = upgrade_hyper_parameters(self.run_checkpoint.hyper_parameters)
        parameters = inspect.signature(ClassificationTask).parameters
        self.run_checkpoint.check_arguments(stored, parameters)
        stored.pop("num_classes")
        replaced = []
        for key, value in stored.items():
            given = _plain(model.get(key))
            if key not in START_OPTIONS and f"model.{key}" in self.typed:
                self._refuse_another(path, key, value, given)
            elif key not in START_OPTIONS and given not in (value, _plain(parameters[key].default)):
                replaced.append(key)
            model[key] = Namespace(value) if isinstance(value, Mapping) and key in GROUPS else value
        _reset(model, START_OPTIONS)
        if replaced and self.subcommand == "fit":
            rank_zero_warn(f"{path} keeps its own {', '.join(replaced)}; the config file says otherwise")

    def _refuse_another(self, path: str, key: str, stored: Any, given: Any) -> None:
        """Refuse a typed value that is not the stored one; of a group, only what was typed counts."""
        if isinstance(stored, Mapping) and isinstance(given, Mapping):
            parts = [part for part in given if f"model.{key}.{part}" in self.typed] or list(given)
            differing = [part for part in parts if given[part] != stored.get(part)]
            if not differing:
                return
            key, stored, given = f"{key}.{differing[0]}", stored.get(differing[0]), given[differing[0]]
        if given not in (stored, "auto"):
            raise ZooError(f"{path} was trained with {key}={stored!r}, which --ckpt_path keeps: leave out {given!r}")

    def _name_classes(self, config: Namespace) -> None:
        """Label folders with the model's classes; folders may be missing, but not added."""
        data = config.data
        if not data.class_path.endswith(".ImageFolder") or data.init_args.get("classes") is not None:
            return
        own = self.run_checkpoint or load(config.model.checkpoint)
        if own.class_names:
            data.init_args["classes"] = own.class_names

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand].trainer
        if config.get("logger") in (None, True):
            if not self.finished:
                rank_zero_only(set_former_log_aside)(self.output)
            loggers = (CSVLogger, TensorBoardLogger) if find_spec("tensorboard") else (CSVLogger,)
            kwargs["logger"] = [logger(self.output, name="", version="") for logger in loggers]
        kwargs["callbacks"] = run_callbacks(self.config_init[self.subcommand], str(self.subcommand), "logger" in kwargs)
        kwargs["plugins"] = [*listed(config.get("plugins")), WholeCheckpointIO()]
        if isinstance(self.datamodule, ImageDataModule):  # it gives every process its share by itself
            kwargs["use_distributed_sampler"] = False
        trainer = super().instantiate_trainer(default_root_dir=str(self.output), **kwargs)
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise ZooError(f"trainer.devices must be at most the {cores} cores, got {trainer.num_devices}")
        if isinstance(trainer.accelerator, CPUAccelerator) and config.get("sync_batchnorm"):
            raise ZooError(
                "trainer.sync_batchnorm needs GPUs: on CPUs freeze the batch normalization by model.frozen, or train "
                "with one process"
            )
        return trainer

    def after_instantiate_classes(self) -> None:
        classes, trained = self.datamodule.num_classes, self.model.trained_classes
        if self.run_checkpoint:
            trained = self.run_checkpoint.hyper_parameters["num_classes"]
            if self.subcommand == "fit" and trained != classes:
                raise ZooError(
                    f"the data has {classes} classes, {self.ckpt_path} {trained}: its training cannot go on; "
                    "start a new one from it by --model, with another --output"
                )
            if wrong := misfit(self.model.model.state_dict(), self.run_checkpoint.state_dict):
                raise ZooError(f"{self.ckpt_path} does not fit its configuration: {wrong}")
            self.model.start = self.run_checkpoint.start
            self.model.start_licence = self.run_checkpoint.start_licence
        if self.subcommand != "fit" and trained is not None and trained != classes:
            raise ZooError(f"the data has {classes} classes, the model {trained}: it can only be evaluated on its own")
        self._choose_preprocessing()

    def _choose_preprocessing(self) -> None:
        """Evaluate as the model's metrics were measured; train with its mean and standard deviation."""
        own = self.run_checkpoint.preprocessing if self.run_checkpoint else self.model.model.preprocessing
        if own is None or not isinstance(self.datamodule, ImageDataModule):
            return
        arguments = self.config[self.subcommand].data.init_args
        if arguments.get("preprocessing") is not None:
            return
        if self.subcommand != "fit" and arguments.get("image_size") is None:
            self.datamodule.preprocessing = own
        else:
            rule = self.datamodule.preprocessing
            self.datamodule.preprocessing = dataclasses.replace(rule, mean=own.mean, std=own.std)

    def _begin(self, split: str | None) -> None:
        """Find the images, then make the folder of the results: what is refused leaves none."""
        if split and isinstance(self.datamodule, ImageDataModule):
            self.datamodule.samples(split)
            if isinstance(self.datamodule, ImageFolder):
                refuse_inside(self.output, str(self.datamodule.root))
                warn_of_seen(self._trained_before(), self.datamodule, split)
        make_output(self.output)
        self.held = self.held or hold(self.output)

    def _trained_before(self) -> RunCheckpoint | None:
        """Find the run that is evaluated, or that a training starts from."""
        if self.run_checkpoint:
            return self.run_checkpoint
        model = self.config[self.subcommand].model
        return find_run(model.checkpoint or model.backbone_weights)

    def before_validate(self) -> None:
        self._begin("val")

    def before_test(self) -> None:
        self._begin("test")

    before_predict = before_test

    def before_fit(self) -> None:
        if not self.trained:
            self.model.distillation.load(self.datamodule)  # one that cannot teach is an error now, not after the checks
        elif self.run_checkpoint and isinstance(self.datamodule, ImageFolder):
            self.datamodule.check_files(self.run_checkpoint.files)  # a training that goes on restores, and checks, them
        self._begin("test" if self.config[self.subcommand].evaluate else None)
        if not isinstance(self.datamodule, ImageDataModule) or not self.trainer.is_global_zero:
            return
        counts = ", ".join(f"{n:,} {split}" for split, n in self.datamodule.record()["images"].items())
        size = sum(p.numel() for p in self.model.model.parameters()) / 1e6
        print(f"{counts} images of {self.datamodule.num_classes} classes; {size:.2f} M parameters")

    def fit(self, **kwargs: Any) -> None:
        """Train; a run whose training has ended already only lacks its evaluation, or nothing."""
        evaluate = self.config[self.subcommand].evaluate
        if self.config[self.subcommand].lr_find:
            rate = suggest_rate(self.trainer, self.model, self.datamodule)
            print(f"suggested for all parts alike: --model.optimizer.lr {rate:.1e}; nothing was trained")
        elif self.finished:
            print(f"the run in {self.output} has finished: nothing to do")
        elif self.trained and evaluate:
            self.trainer.test(self.model, self.datamodule, ckpt_path=self.ckpt_path, verbose=False)
            self.after_test()
        else:
            self.trainer.fit(**kwargs)
            self._evaluate(evaluate)

    def _evaluate(self, evaluate: bool) -> None:
        if getattr(self.trainer, "fast_dev_run", False):
            return
        if evaluate and self.trainer.state.finished:
            self.trainer.test(self.model, self.datamodule, verbose=False)
            self._show_mistakes()
        print_summary(self.trainer, self.output)

    def _show_mistakes(self) -> None:
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False):
            written = next(c for c in self.trainer.callbacks if isinstance(c, TestPredictions))  # type: ignore[attr-defined]
            write_mistakes(written.table, self.model.model, self.datamodule, self.output)

    def after_test(self) -> None:
        self._show_mistakes()
        print_summary(self.trainer, self.output)

    def after_validate(self) -> None:
        print_summary(self.trainer, self.output)

    def predict(self, **kwargs: Any) -> None:
        """Write the class of every image of the data into ``predictions.csv``."""
        processes = self.trainer.world_size
        if processes > 1 and not isinstance(self.datamodule, ImageDataModule):
            raise ZooError(
                f"predict on other data modules needs one process, got {processes}: set trainer.devices to 1"
            )
        outputs: list[Any] = self.trainer.predict(**kwargs) or []
        if processes > 1:
            outputs = gather_in_order(self.trainer, self.datamodule.predict_dataloader().sampler, torch.cat(outputs))
        if self.trainer.is_global_zero:
            write_predictions(outputs, self.model.model, self.datamodule, self.output)


def _reset(model: Namespace, keys: Sequence[str]) -> None:
    parameters = inspect.signature(ClassificationTask).parameters
    for key in keys:
        model[key] = parameters[key].default


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.as_dict()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
