"""The quickstart's model, data and training loop: the same for both strategies."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

Data = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Two convolutions and three linear layers: LeNet-5's successor in many tutorials."""

    def __init__(self, channels: int = 1, size: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=2)
        self.fc1 = nn.Linear(16 * (size // 4) ** 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, size, size) -> (N, 10)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits


def load_data(partition: int, partitions: int) -> tuple[Data, Data]:
    """Return a client's training images and the test images: scikit-learn's digits, doubled."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    labels = torch.tensor(digits.target)
    order = np.random.default_rng(0).permutation(len(labels))
    test, rest = order[:400], order[400:]
    own = rest[partition::partitions]
    return (images[own], labels[own]), (images[test], labels[test])


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
