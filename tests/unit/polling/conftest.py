# SPDX-License-Identifier: Apache-2.0
"""Pure decisions: nothing waits here, so pauses are as long as they are."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_pauses() -> None:
    """Leave the pauses alone."""
