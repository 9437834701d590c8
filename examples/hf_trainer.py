"""A model of the zoo in Hugging Face's Trainer (pip install transformers accelerate): python examples/hf_trainer.py"""

import tempfile

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

import gcpzoo


class ForTrainer(nn.Module):
    """What the Trainer expects of a network: keyword arguments in, a dict with the loss and the logits out."""

    def __init__(self, model: gcpzoo.GCPNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.model(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def split(data: gcpzoo.data.Digits, name: str) -> list[dict[str, torch.Tensor | int]]:
    transform = data.preprocessing.transform()
    return [{"pixel_values": transform(image), "labels": label} for image, label in data.index().splits[name]]


def accuracy(prediction: object) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main(epochs: float = 2) -> float:
    """Train from random weights, and return its accuracy on the test images."""
    set_seed(0)
    data = gcpzoo.data.Digits()
    model = gcpzoo.create_model("resnet18", "isqrt", num_classes=10, dim=16, until="layer1")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=32, per_device_eval_batch_size=64,
            learning_rate=2e-3, logging_steps=20, save_strategy="no", report_to="none", use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(
            ForTrainer(model),
            arguments,
            train_dataset=split(data, "train"),
            eval_dataset=split(data, "test"),
            compute_metrics=accuracy,
        )
        trainer.train()
        found = trainer.evaluate()["eval_accuracy"]
    print(f"test accuracy {100 * found:.1f} %")
    return found


if __name__ == "__main__":
    main()
