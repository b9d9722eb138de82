"""The run's settings: the same keys as pyproject.toml, and every wrong one refused by name."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from server_app.settings import REMOVED_KEYS, Settings, SettingsError

KEYS = [name.replace("_", "-") for name in Settings.model_fields]


def test_keys_and_defaults_are_exactly_those_of_pyproject(default_run_config):
    assert list(default_run_config) == KEYS
    defaults = Settings().to_run_config()
    assert defaults == default_run_config
    for key, default in default_run_config.items():
        assert type(defaults[key]) is type(default), key


def test_every_setting_is_described():
    for name, field in Settings.model_fields.items():
        assert str(field.description).endswith("."), name


def test_the_defaults_are_settings_and_come_back(default_run_config):
    settings = Settings.from_run_config(default_run_config)
    assert settings.to_run_config() == default_run_config


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 1  # type: ignore[misc]


def test_whole_numbers_do_for_decimal_ones(default_run_config):
    settings = Settings.from_run_config({**default_run_config, "node-timeout": 5})
    assert settings.node_timeout == 5.0
    assert isinstance(settings.node_timeout, float)


def test_lists_of_numbers(default_run_config):
    config = {**default_run_config, "capacities": "0.5, 1", "ridge-penalties": "1,1e3"}
    settings = Settings.from_run_config(config)
    assert settings.client_capacities() == [0.5, 1.0]
    assert settings.penalties() == [1.0, 1000.0]
    assert Settings.from_run_config(default_run_config).client_capacities() is None


def test_wire_dtypes_of_both_ways(default_run_config):
    for text, pair in (("int8", ("int8", "int8")), ("float16:int4", ("float16", "int4"))):
        settings = Settings.from_run_config({**default_run_config, "wire-dtype": text})
        assert settings.wire_dtypes() == pair


def wrong_types() -> list[tuple[str, object]]:
    """Pair each key with a value of each type that it must not have."""
    wrong = {
        "int": [True, "4", 1.0, None, [1]],
        "float": [True, "0.5", None, [0.5]],
        "bool": [1, 0, "true", None],
        "str": [1, True, None, ["ist"]],
    }
    defaults = Settings().to_run_config()
    return [(key, value) for key in KEYS for value in wrong[type(defaults[key]).__name__]]


@pytest.mark.parametrize(("key", "value"), wrong_types())
def test_values_of_another_type_are_refused(default_run_config, key, value):
    with pytest.raises(SettingsError, match=rf"^'{key}' is .*, but must be [a-z ]+\.$"):
        Settings.from_run_config({**default_run_config, key: value})


@pytest.mark.parametrize("key", KEYS)
def test_missing_keys_are_named(default_run_config, key):
    config = {k: v for k, v in default_run_config.items() if k != key}
    with pytest.raises(SettingsError, match=f"lacks '{key}': see pyproject.toml"):
        Settings.from_run_config(config)


REFUSED = [
    ({"num-rounds": 0}, "'num-rounds' is 0, but must be at least 1"),
    ({"num-rounds": -3}, "'num-rounds' is -3"),
    ({"num-slices": -1}, "'num-slices' is -1, but must be at least 0"),
    ({"hidden-width": 0}, "'hidden-width' is 0"),
    ({"hidden-layers": -1}, "'hidden-layers' is -1, but must be at least 0"),
    ({"local-steps": -1}, "'local-steps' is -1, but must be at least 0"),
    (
        {"local-epochs": 0.0},
        "'local-epochs' is 0.0, but must be above 0; to set the steps yourself, leave it as it is "
        "and set 'local-steps'",
    ),
    ({"local-epochs": -1.0}, "'local-epochs' is -1.0, but must be above 0"),
    ({"local-epochs": math.nan}, "'local-epochs' is nan"),
    ({"local-epochs": math.inf}, "'local-epochs' is inf"),
    ({"batch-size": 0}, "'batch-size' is 0"),
    ({"learning-rate": 0.0}, r"'learning-rate' is 0.0, but must be above 0\.$"),
    ({"learning-rate": -0.1}, "'learning-rate' is -0.1"),
    ({"learning-rate": math.nan}, "'learning-rate' is nan"),
    ({"learning-rate": math.inf}, "'learning-rate' is inf, but must be finite and above 0"),
    ({"seed": -1}, "'seed' is -1, but must be at least 0"),
    ({"fraction-train": 0.0}, "'fraction-train' is 0.0, but must be above 0 and at most 1"),
    ({"fraction-train": 1.01}, "'fraction-train' is 1.01"),
    ({"fraction-train": math.nan}, "'fraction-train' is nan"),
    ({"min-train-nodes": 0}, "'min-train-nodes' is 0"),
    ({"min-available-nodes": 0}, "'min-available-nodes' is 0"),
    ({"node-timeout": -0.1}, "'node-timeout' is -0.1"),
    ({"node-timeout": math.nan}, "'node-timeout' is nan"),
    ({"round-timeout": 0.0}, "'round-timeout' is 0.0"),
    (
        {"capacities": "0.5;0.5"},
        "'capacities' is '0.5;0.5', but must be numbers with commas between them",
    ),
    ({"ridge-penalties": "1e"}, "'ridge-penalties' is '1e', but must be numbers with commas"),
    ({"ridge-penalties": "1,,1"}, "'ridge-penalties' is '1,,1', but must be numbers with commas"),
    ({"norm-bound": math.nan}, "'norm-bound' is nan"),
    ({"privacy-clip": -1.0}, r"'privacy-clip' is -1.0, but must be at least 0\.$"),
    ({"privacy-noise": 1.0}, "'privacy-noise' is 1.0, but 'privacy-clip' is 0: noise protects"),
    ({"validation-share": 1.0}, "'validation-share' is 1.0, but must be at least 0 and below 1"),
    ({"validation-share": -0.1}, "'validation-share' is -0.1"),
    ({"wire-dtype": "int2"}, "'wire-dtype' is 'int2', but must be one of: float32, float16, int8"),
    (
        {"wire-dtype": ""},
        "'wire-dtype' is '', but must be one of: float32, float16, int8, int4, compact; ",
    ),
    ({"wire-dtype": "int8:"}, "'wire-dtype' is 'int8:', but must be one of"),
    ({"wire-dtype": "int8:int4:int4"}, "or two for down and up, as int8:int4"),
    ({"strategy": "nonsense"}, "'strategy' is 'nonsense', but must be one of: ist, ist-fixed, "),
    (
        {"close-early": True},
        "'close-early' ends a round once every slice is back: set 'num-slices' and choose one of: "
        "ist, ist-fixed; or set it to false",
    ),
    ({"data-dir": "shards"}, r"'data-dir' is 'shards', but must be an absolute.*start it from\.$"),
    ({"output-dir": "./run"}, "'output-dir' is './run', but must be an absolute path"),
    ({"output-dir": "~/run"}, "'output-dir' is '~/run', but must be an absolute path.*`~` is not"),
    ({"data-dir": "~/shards"}, r"start it from, and `~` is not expanded\.$"),
    ({"resume": True}, "'resume' is true, but 'output-dir' is empty: set it to the folder"),
    ({"keep-checkpoints": -1}, "'keep-checkpoints' is -1, but must be at least 0"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_settings_of_no_use_are_refused_by_name(default_run_config, changes, message):
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.from_run_config({**default_run_config, **changes})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("key", REMOVED_KEYS)
def test_a_removed_key_is_refused_with_what_takes_its_place(default_run_config, key):
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config({**default_run_config, key: ""})
    assert str(caught.value) == f"{key!r} was removed: {REMOVED_KEYS[key]}."
    assert key not in default_run_config
    # What takes its place is there.
    assert set(re.findall("'([a-z-]+)'", REMOVED_KEYS[key])) <= default_run_config.keys()


def test_absolute_paths_are_fine(default_run_config, tmp_path: Path):
    config = {**default_run_config, "data-dir": str(tmp_path), "output-dir": str(tmp_path / "new")}
    assert Settings.from_run_config(config).output_dir == str(tmp_path / "new")
