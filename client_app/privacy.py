"""Clip a client's update and add Gaussian noise to it before it leaves the device.

The update is what training changed, on the model's own scale. Its L2 norm over the whole slice is
clipped to C, and N(0, (z C)^2) is added to each weight that the client owns:

    answer = sent + f (clip(change) + noise),        clip(u) = u min(1, C / ||u||)

with f the factor that a slice's tensor carries (docs/method.md). This is the Gaussian mechanism in
the local model: the server sees nothing else of the client's data in a round, so it need not be
trusted with the data. All of a client's data is protected, not only single examples;
docs/privacy.md gives the cost, and flower_ist/runs/privacy_budget.py computes the epsilon.

Noise of a fixed size on each weight is correct for any owner. Flower's central mechanisms add noise
to a sum over clients and divide both by their number; a weight with one owner has no such sum.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError
from flower_ist.wire.reported import finite

CLIP_KEY = "privacy-clip"
NOISE_KEY = "privacy-noise"

# What a private reply may say besides its arrays: nothing that depends on an example's content.
PUBLIC_METRICS = ("num-examples", "local-steps", "examples-trained", "token-bytes")

Tensors = Mapping[str, NDArray[Any]]
RandomBytes = Callable[[int], bytes]

# Each number of noise is half the sum of so many normal ones.
_SUMMANDS = 4


class PrivacyError(FlowerIstError):
    """The privacy settings are invalid, or the client is asked for what it must not reveal."""


@dataclass(frozen=True)
class Privacy:
    """The clipping and noise that protect a client's updates.

    Attributes:
        clip: C, the largest L2 norm of an update, above 0.
        noise: z, standard deviation of the noise on each weight, in multiples of C.
    """

    clip: float
    noise: float

    @classmethod
    def of(cls, context: Context) -> Privacy | None:
        """Return what protects this client's updates; None if nothing does.

        The device's own settings (node config) take precedence and are set as a pair: the run's
        settings are the server's, which could turn the noise off. Without them the run config
        applies.

        Raises:
            PrivacyError: the settings are invalid, or only one of the device's two is set.
        """
        own = [key for key in (CLIP_KEY, NOISE_KEY) if key in context.node_config]
        if len(own) == 1:
            raise PrivacyError(
                f"The node config gives {own[0]!r} alone: give {CLIP_KEY!r} and {NOISE_KEY!r}, or "
                "neither."
            )
        source = context.node_config if own else context.run_config
        clip, noise = (_number(key, source.get(key, 0.0)) for key in (CLIP_KEY, NOISE_KEY))
        if noise and not clip:
            raise PrivacyError(f"{NOISE_KEY!r} is {noise}, but {CLIP_KEY!r} is 0: set both.")
        return cls(clip, noise) if clip else None


def _number(key: str, value: object) -> float:
    number = finite(value)
    if number is None or number < 0:
        raise PrivacyError(f"{key!r} is {value!r}, but must be a number of at least 0.")
    return number


def privatize(
    sent: Tensors,
    trained: Tensors,
    factors: Mapping[str, float],
    privacy: Privacy,
    random_bytes: RandomBytes = os.urandom,
) -> dict[str, NDArray[Any]]:
    """Return the tensors that may leave the device.

    Args:
        sent: name -> tensor, as it came from the server.
        trained: the same after training.
        factors: name -> factor of the tensor; 1 for tensors not named.
        privacy: the clipping norm and the noise.
        random_bytes: returns a given number of unpredictable bytes.

    Raises:
        PrivacyError: a tensor of integers cannot take noise.
    """
    changes: dict[str, NDArray[np.float64]] = {}
    for name, tensor in trained.items():
        if tensor.dtype.kind != "f":
            raise PrivacyError(
                f"{name!r} holds {tensor.dtype} numbers, which take no noise: leave it out of "
                "what is sent, or train without privacy."
            )
        with np.errstate(all="ignore"):
            change = np.subtract(tensor, sent[name], dtype=np.float64)
            changes[name] = np.asarray(change / factors.get(name, 1.0))
    clipped = clip(changes, privacy.clip)
    found: dict[str, NDArray[Any]] = {}
    for name, change in clipped.items():
        noise = gaussian_noise(change.size, random_bytes).reshape(change.shape)
        noisy = change + privacy.noise * privacy.clip * noise
        with np.errstate(over="ignore"):
            answer = sent[name] + factors.get(name, 1.0) * noisy
            found[name] = np.asarray(answer).astype(trained[name].dtype)
    return found


def clip(changes: Mapping[str, NDArray[np.float64]], norm: float) -> dict[str, NDArray[np.float64]]:
    """Scale changes down together so that their L2 norm is at most ``norm``.

    A change with values that are not finite becomes 0: the bound must hold for every update that
    any data could cause.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        length = math.sqrt(sum(float(np.square(change).sum()) for change in changes.values()))
    if not math.isfinite(length):
        return {name: np.zeros_like(change) for name, change in changes.items()}
    if length <= norm:
        return dict(changes)
    return {name: change * (norm / length) for name, change in changes.items()}


def gaussian_noise(count: int, random_bytes: RandomBytes = os.urandom) -> NDArray[np.float64]:
    """Return unpredictable standard normal numbers (count,).

    They come from the system's random bytes, never from the run's seed, which the server knows, nor
    from numpy's generators, whose state can be found from their output. The bytes become normal
    numbers by the Box-Muller transform (1958). The last bits of a single such float64 can reveal
    what was added to it; those of half the sum of four cannot in practice (Holohan and Braghin,
    "Secure Random Sampling in Differential Privacy", ESORICS 2021,
    https://arxiv.org/abs/2107.10138).
    """
    total = np.zeros(count)
    for _ in range(_SUMMANDS):
        total += _normal(count, random_bytes)
    return total / math.sqrt(_SUMMANDS)


def _normal(count: int, random_bytes: RandomBytes) -> NDArray[np.float64]:
    pairs = -(-count // 2)
    whole = np.frombuffer(random_bytes(16 * pairs), "<u8").reshape(2, pairs)
    uniform = ((whole >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # above 0, below 1
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0])), 2.0 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
