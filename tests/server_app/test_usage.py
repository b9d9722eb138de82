"""What the settings say of themselves is what docs/settings.md says, and what a comparison asks."""

from __future__ import annotations

import json

from server_app.settings import Settings
from server_app.usage import page, usage
from tests.fakes import ROOT


def test_the_page_of_settings_is_the_models():
    """If not: python -m server_app.usage > docs/settings.md."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_the_page_has_every_key_once(default_run_config):
    text = page()
    for key in default_run_config:
        assert text.count(f"\n| `{key}` | ") == 1


def test_what_is_told_is_json():
    told = json.loads(json.dumps(usage()))
    assert list(told["keys"]) == [name.replace("_", "-") for name in Settings.model_fields]
    for facts in told["keys"].values():
        assert facts["applies_to"]
        assert set(facts["applies_to"]) <= set(told["strategies"])
        assert facts["also_with"] in ("", *told["keys"])
