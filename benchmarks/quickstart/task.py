"""The quickstart's model, data and training loop: the same for both strategies."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

Data = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Two convolutions and three linear layers, as in Flower's quickstart."""

    def __init__(self, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * (((size - 4) // 2 - 4) // 2) ** 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, size, size) -> (N, 10)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits


def load_data(partition: int, partitions: int, folder: str = "") -> tuple[Data, Data]:
    """Return a client's training images and the test images, (N, 1, 28, 28) from -1 to 1.

    Args:
        partition: number of the client.
        partitions: number of clients.
        folder: with Fashion-MNIST's four files (Debian: dataset-fashion-mnist), of which 12,000
            images are trained on; if empty, scikit-learn's 1,797 digits, 16 x 16 in
            a frame of 6.
    """
    if folder:
        images, labels = _fashion(Path(folder), "train", 12_000)
        test_set = _fashion(Path(folder), "t10k", 10_000)
        return (images[partition::partitions], labels[partition::partitions]), test_set
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    images = functional.pad(images, (6, 6, 6, 6), value=-1.0)
    labels = torch.tensor(digits.target)
    order = np.random.default_rng(0).permutation(len(labels))
    test, rest = order[:400], order[400:]
    own = rest[partition::partitions]
    return (images[own], labels[own]), (images[test], labels[test])


def _fashion(folder: Path, part: str, count: int) -> Data:
    """Read the first images and labels of an IDX pair: headers of 16 and 8 bytes, then uint8."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    images = torch.tensor(pixels.reshape(-1, 1, 28, 28), dtype=torch.float32) / 127.5 - 1
    return images, torch.tensor(labels, dtype=torch.long)


def train(model: nn.Module, data: Data, epochs: int, lr: float) -> float:
    """Train as a tutorial does: plain SGD with momentum, batches of 32. Return the last loss."""
    images, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    loss = torch.zeros(())
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), 32):
            batch = order[start : start + 32]
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return float(loss.detach())


def test(model: nn.Module, data: Data) -> float:
    """Return the share of images that are classified rightly."""
    images, labels = data
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())
