"""fit, validate, test and predict: LightningCLI over ClassificationTask and the data modules."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import gcpzoo.data
from gcpzoo.cli.arguments import Parser, rewritten
from gcpzoo.errors import ZooError
from gcpzoo.hub import load
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training.callbacks import RunReport
from gcpzoo.training.task import ClassificationTask

OUTPUT = "GCPZOO_OUTPUT"
START = ("checkpoint", "backbone_weights", "pretrained_backbone", "allow_partial")


class ZooCLI(LightningCLI):
    """``gcpzoo fit|validate|test|predict``: one output folder a run, the final epoch evaluated, everything recorded."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{**kwargs, "exit_on_error": True})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str | None, default=None, help="folder of the run; default: runs/NAME")
        parser.add_argument(
            "--evaluate", type=bool, default=True, help="after fit, evaluate the final epoch on the test split"
        )
        parser.link_arguments("data", "model.num_classes", compute_fn=_num_classes, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Rebuild the network of ``--ckpt_path`` from its own hyperparameters."""
        config = self.config[self.config.subcommand]
        path = config.get("ckpt_path")
        if self.config.subcommand != "fit" and not path and not config.model.checkpoint:
            raise ZooError("which model? give --model NAME (see 'gcpzoo list'), or --ckpt_path FILE of a run")
        if config.model.checkpoint and self.config.subcommand != "fit":
            self._know_classes(load(config.model.checkpoint).class_names)
        if not path:
            return
        if not Path(path).is_file():
            raise ZooError(f"no checkpoint {path!r}; give the file, runs/NAME/checkpoints/last.ckpt")
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            hparams = dict(checkpoint["hyper_parameters"])
            self.checkpoint = checkpoint["gcpzoo"]
        except Exception as error:
            raise ZooError(f"{path!r} is no checkpoint of gcpzoo: {str(error).splitlines()[0]}") from error
        self.trained_classes = hparams.pop("num_classes")
        defaults = inspect.signature(ClassificationTask).parameters
        for key, value in hparams.items():
            given = config.model.get(key)
            if key not in START and given not in (value, defaults[key].default) and given != "auto":
                raise ZooError(f"{path} was trained with {key}={value!r}, which --ckpt_path keeps: leave out {given!r}")
            config.model[key] = value
        if self.config.subcommand != "fit":
            self._know_classes(self.checkpoint["class_names"])

    def _know_classes(self, names: list[str] | None) -> None:
        """Evaluate on folders by the model's own classes: some may be missing, none may be new."""
        data = self.config[self.config.subcommand].data
        if names and data.class_path.endswith(".ImageFolder") and data.init_args.get("classes") is None:
            data.init_args["classes"] = names

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        if "verbose" in config:
            config.verbose = False  # the summary says it in one line
        self.output = _output_folder(config, self.config.subcommand)
        os.environ[OUTPUT] = str(self.output)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        if config.get("logger") in (None, True):
            former = self.output / "metrics.csv"  # CSVLogger would delete what a resumed run has logged
            if former.exists() and "LOCAL_RANK" not in os.environ:
                names = (self.output / f"metrics-{i}.csv" for i in range(1, 10_000))
                former.rename(next(n for n in names if not n.exists()))
            kwargs["logger"] = [logger(self.output, name="", version="") for logger in (CSVLogger, TensorBoardLogger)]
        given = config.get("callbacks") or []
        callbacks = list(given) if isinstance(given, list) else [given]
        if self.subcommand == "fit" and config.get("enable_checkpointing") is not False:
            callbacks.append(ModelCheckpoint(filename="last", enable_version_counter=False))
        if config.get("enable_progress_bar") is not False:
            callbacks.append(RichProgressBar(leave=True))
        kwargs["callbacks"] = [*callbacks, RunReport()]
        return super().instantiate_trainer(default_root_dir=str(self.output), **kwargs)

    def after_instantiate_classes(self) -> None:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"the output folder {str(self.output)!r} cannot be made: {error.strerror}") from error
        own, classes = self.model.model.preprocessing, self.datamodule.num_classes
        if hasattr(self, "checkpoint"):
            self.model.start = self.checkpoint["start"]
            saved = self.checkpoint["preprocessing"]
            own = Preprocessing.from_dict(saved) if saved else None
        trained = getattr(self, "trained_classes", self.model.trained_classes or classes)
        if self.subcommand != "fit" and trained != classes:
            raise ZooError(f"the data has {classes} classes, the model {trained}: it can only be evaluated on its own")
        if own is None or not isinstance(self.datamodule, gcpzoo.data.ImageDataModule):
            return
        arguments = self._get(self.config, "data").init_args
        size = inspect.signature(type(self.datamodule)).parameters.get("image_size")
        chosen = size is not None and arguments.get("image_size") != size.default
        if arguments.get("preprocessing") is not None:
            return
        if self.subcommand != "fit" and not chosen:
            self.datamodule.preprocessing = own  # as its metrics were measured
        else:
            rule = self.datamodule.preprocessing
            self.datamodule.preprocessing = dataclasses.replace(rule, mean=own.mean, std=own.std)

    def before_fit(self) -> None:
        if not isinstance(self.datamodule, gcpzoo.data.ImageDataModule) or not self.trainer.is_global_zero:
            return
        if self._get(self.config, "evaluate"):
            self.datamodule.samples("test")  # without test images that is said now, not after the training
        counts = ", ".join(f"{n:,} {split}" for split, n in self.datamodule.record()["images"].items())
        size = sum(p.numel() for p in self.model.model.parameters()) / 1e6
        print(f"{counts} images of {self.datamodule.num_classes} classes; {size:.2f} M parameters")

    def after_fit(self) -> None:
        if getattr(self.trainer, "fast_dev_run", False):
            return
        if self._get(self.config, "evaluate") and self.trainer.state.finished:
            self.trainer.test(self.model, self.datamodule, verbose=False)
        self._summary()

    def after_test(self) -> None:
        self._summary()

    after_validate = after_test

    def _summary(self) -> None:
        report = next(c for c in self.trainer.callbacks if isinstance(c, RunReport)).report  # type: ignore[attr-defined]
        for stage in ("validate", "test"):
            if stage in report and self.trainer.is_global_zero:
                r = report[stage]
                epochs = f" after epoch {report['fit']['epochs']}" if "fit" in report else ""
                top1, top5, mean = (100 * r[k] for k in ("top1", "top5", "per_class"))
                figures = f"top-1 {top1:.2f} %, top-5 {top5:.2f} %, mean over classes {mean:.2f} %"
                print(f"{stage}{epochs}: {figures}, loss {r['loss']:.4f}")
        if self.trainer.is_global_zero:
            print(f"results in {self.output}")

    def predict(self, **kwargs: Any) -> None:
        """Write the class of every image of the data into ``predictions.csv``."""
        outputs = self.trainer.predict(**kwargs) or []
        names = self.model.model.class_names or self.datamodule.class_names
        path = self.output / "predictions.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            probabilities = torch.cat([p for p in outputs if isinstance(p, torch.Tensor)])
            writer.writerow(["image", "true class", "class", "probability"])
            samples: list[Any] = getattr(self.datamodule, "samples", lambda _: [])("test")
            for i, (p, k) in enumerate(zip(*[t.tolist() for t in probabilities.max(1)])):
                image, label = samples[i] if samples else (i, None)
                known = names[label] if label is not None else ""
                writer.writerow([image if isinstance(image, str) else i, known, names[k], f"{p:.4f}"])
        print(f"{len(probabilities)} predictions in {path}")


def _num_classes(data: Any) -> int:
    if not hasattr(data, "num_classes"):
        raise ZooError(f"{type(data).__name__} does not say num_classes and class_names, which every data module must")
    return data.num_classes


def _output_folder(config: Any, subcommand: str) -> Path:
    """The run's folder: ``--output``, else that of the checkpoint, else a new ``runs/BACKBONE_HEAD[-2…]``."""
    if "LOCAL_RANK" in os.environ and OUTPUT in os.environ:  # a process that the trainer started beside the first one
        return Path(os.environ[OUTPUT])
    if config.get("output"):
        folder = Path(config.output)
        if subcommand == "fit" and (folder / "metrics.json").exists() and not config.get("ckpt_path"):
            raise ZooError(
                f"{str(folder)!r} holds a run already: give another --output, or --ckpt_path to go on with it"
            )
        return folder
    path = Path(config.get("ckpt_path") or config.model.checkpoint or "")
    run = path.parent.parent if path.suffix == ".ckpt" and path.parent.name == "checkpoints" else None
    if run and subcommand == "fit" and config.get("ckpt_path"):
        return run
    model = config.model
    name = run.name if run else str(model.checkpoint or f"{model.backbone}_{model.head}").split("/")[-1]
    name = name.replace(":", "-") + ("" if subcommand == "fit" else f"-{subcommand}")
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(f for f in folders if not f.exists())


def train(argv: list[str]) -> int:
    """Run one of LightningCLI's commands with the arguments ``argv``."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")  # logs are kept
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*Total length of `list` across ranks is zero.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    before, sys.argv = sys.argv, [sys.argv[0], *rewritten(argv)]  # from there other processes of a run take them
    try:
        ZooCLI(
            ClassificationTask,
            LightningDataModule,
            subclass_mode_data=True,
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"max_epochs": 10, "enable_model_summary": False},
        )
    except MisconfigurationException as error:
        raise ZooError(str(error).splitlines()[0]) from error
    except ZooError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if "lightning" not in Path(frames[-1].filename).parts:
            raise
        raise ZooError(f"the trainer refuses its arguments: {str(error).strip().splitlines()[0]}") from error
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        raise ZooError(
            f"out of memory{f' (for {size[1]} more)' if size else ''}: take a smaller data.batch_size, data.image_size "
            "or model.dim, or model.recompute_head"
        ) from error
    except AssertionError as error:
        if "size" in str(error) or "height" in str(error):  # timm's transformers take images of one size
            raise ZooError(
                f"the backbone refuses the images: {error} (data.image_size, or backbone_args img_size)"
            ) from error
        raise
    except SystemExit as stop:  # Lightning's answer to Ctrl-C, and to a scheduler's SIGTERM
        terminated = isinstance(stop, SIGTERMException)
        if stop.code != 1 and not terminated:
            raise
        last = Path(os.environ.get(OUTPUT, "")) / "checkpoints" / "last.ckpt"
        remedy = f"; the same command with --ckpt_path {last} goes on after its last epoch" if last.is_file() else ""
        print(f"gcpzoo: stopped{remedy}", file=sys.stderr)
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    finally:
        sys.argv = before
        os.environ.pop(OUTPUT, None)
    return 0
