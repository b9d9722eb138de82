"""The ClientApp of the bundle: the installed library's."""

from __future__ import annotations

import bundle.library  # noqa: F401 - first, so that its sentence comes before any other error
import client_app.app

# Flower looks for the assignment before it starts a run.
app = client_app.app.app
