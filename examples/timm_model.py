"""A covariance head in place of a timm model's pooling, on the digits: python examples/timm_model.py"""

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

import gcpzoo


class Pooled(nn.Module):
    """A timm model without its pooling and classifier, then a head of the zoo and a new classifier."""

    def __init__(self, name: str, head: str, num_classes: int, dim: int = 16, **options: object) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=0, global_pool="", **options)
        self.head = gcpzoo.heads.create_head(head, in_features=self.backbone.num_features, dim=dim)
        self.classifier = nn.Linear(self.head.out_features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.backbone(x)  # a map (B, C, h, w), or tokens (B, N, C) with the class token first
        tokens = f.ndim == 3
        v = self.head(f[:, self.backbone.num_prefix_tokens :] if tokens else f, tokens=tokens)
        return self.classifier(v)


def main(name: str = "test_resnet.r160_in1k", head: str = "isqrt", epochs: int = 2) -> float:
    """Train from random weights (pretrained=True fetches timm's), and return the accuracy on the test images."""
    torch.manual_seed(0)
    data = gcpzoo.data.Digits(image_size=64)
    data.setup("fit")
    data.setup("test")
    network = Pooled(name, head, data.num_classes)
    # gcpzoo.create_model(f"timm:{name}", head, 10) is the same in one line, and can be published
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    accuracy = 0.0
    for epoch in range(epochs):
        network.train()
        for images, labels in data.train_dataloader():
            loss = nn.functional.cross_entropy(network(data.preprocessing.normalize(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = evaluate(network.eval(), data.test_dataloader(), data.preprocessing)
        print(f"epoch {epoch + 1}: test accuracy {100 * accuracy:.1f} %")
    return accuracy


@torch.no_grad()
def evaluate(network: nn.Module, loader: DataLoader, preprocessing: gcpzoo.models.Preprocessing) -> float:
    hits = [network(preprocessing.normalize(x)).argmax(1) == y for x, y in loader]
    return torch.cat(hits).float().mean().item()


if __name__ == "__main__":
    main()
