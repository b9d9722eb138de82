"""A ResNet and a ViT in slices learn as FedAvg does, under their own plain SGD, for fewer bytes."""

import pytest

from benchmarks.modules_learn import MODELS, compare


@pytest.mark.long
@pytest.mark.parametrize(("name", "share"), [("torchvision ResNet-18", 0.36), ("timm ViT", 0.54)])
def test_within_three_points_of_fedavg(name, share):
    make, lr = MODELS[name]
    rival, _, whole = compare("fedavg", make, 20, lr, 0)
    accuracy, _, sent = compare("ist", make, 20, lr, 0)
    assert rival > 0.5
    assert accuracy >= rival - 0.03
    assert sent <= share * whole
