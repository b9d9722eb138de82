"""Which settings go together: the rules that no key can tell of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_app.fields import extra_of, kebab
from server_app.strategies import CLOSED_FORM, SLICED, SUBMODELS

if TYPE_CHECKING:
    from server_app.settings import Settings


def check_rules(settings: Settings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ValueError: with one sentence that names the keys.
    """
    _fits_the_strategy(settings)
    _keeps_its_privacy(settings)
    _can_go_on(settings)


def _fits_the_strategy(settings: Settings) -> None:
    name = settings.strategy
    settings.options()
    for field in ("capacities", "merge_rule", "norm_bound"):
        # Who sets one of these relies on it.
        info, value = type(settings).model_fields[field], getattr(settings, field)
        users = extra_of(info)["applies_to"]
        if name not in users and value != info.default:
            raise ValueError(
                f"{kebab(field)!r} is {value!r}, but {name!r} does not follow it: leave it at "
                f"{info.default!r}, or choose one of: {', '.join(users)}."
            )
    if name in SUBMODELS and settings.hidden_layers == 0:
        raise ValueError(
            f"'hidden-layers' is 0, but {name!r} divides hidden neurons: set at least 1, or "
            "choose a strategy that trains the whole model, e.g. fedavg."
        )
    narrow = settings.cut == "alternate" and settings.hidden_layers > 1 and name not in CLOSED_FORM
    if not settings.num_slices and (settings.slice_bytes or narrow or name == "fedavg-narrow"):
        raise ValueError(
            "'num-slices' is 0, but the widths of this net follow from it: set 'num-slices', "
            "e.g. to the number of clients."
        )
    if settings.close_early and (name not in SLICED or not settings.num_slices):
        raise ValueError(
            "'close-early' ends a round once every slice is back: set 'num-slices' and choose "
            f"one of: {', '.join(SLICED)}; or set it to false."
        )


def _keeps_its_privacy(settings: Settings) -> None:
    if settings.privacy_noise and not settings.privacy_clip:
        raise ValueError(
            f"'privacy-noise' is {settings.privacy_noise}, but 'privacy-clip' is 0: noise protects "
            "only an update whose size is bounded."
        )
    if settings.privacy_clip and settings.strategy in CLOSED_FORM:
        raise ValueError(
            f"'privacy-clip' is {settings.privacy_clip}, but the sums that {settings.strategy!r} "
            "asks for are not protected by it: set it to 0, or choose a strategy that trains."
        )
    if settings.privacy_clip and (settings.standardize or settings.replay or settings.lda_skip):
        raise ValueError(
            f"'privacy-clip' is {settings.privacy_clip}, but the statistics that clients send "
            "before the first round are not protected by it: set 'standardize', 'replay' and "
            "'lda-skip' to false."
        )


def _can_go_on(settings: Settings) -> None:
    if settings.resume and not settings.output_dir:
        raise ValueError(
            "'resume' is true, but 'output-dir' is empty: set it to the folder of the run to "
            "go on with."
        )
