"""A covariance head in a plain PyTorch loop, on scikit-learn's digits: python examples/plain_loop.py"""

import torch
from torch import nn

import gcpzoo


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (N, 1, 8, 8) with values 0…1 and labels, to train and to test."""
    splits = gcpzoo.data.Digits().index().splits
    arrays = []
    for split in ("train", "test"):
        arrays.append(torch.stack([image for image, _ in splits[split]]).float() / 255)
        arrays.append(torch.tensor([label for _, label in splits[split]]))
    return tuple(arrays)


class Network(nn.Module):
    """Your own layers; the head takes their map (B, 32, 4, 4) and gives a vector of head.out_features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = gcpzoo.heads.create_head("isqrt", in_features=32, dim=16, iterations=5)
        self.classifier = nn.Linear(self.head.out_features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(self.features(x)))


def main(epochs: int = 3) -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    x, y, test_x, test_y = digits()
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        network.train()
        for batch in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            accuracy = (network(test_x).argmax(1) == test_y).float().mean().item()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
