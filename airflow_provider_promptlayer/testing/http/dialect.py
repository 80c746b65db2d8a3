# SPDX-License-Identifier: Apache-2.0
"""Which form an answer has where PromptLayer's sources disagree."""

from __future__ import annotations

from typing import Literal, TypeAlias

Dialect: TypeAlias = Literal["description", "libraries"]
"""``description``: that of its OpenAPI description, with the other beside it where both fit.

``libraries``: that of its libraries, MCP server, recorded answers and older pages. Cursors are in
``pagination`` alone, statuses of cells in upper case, their values ``{"value": …}``, imports are
``queued`` and have ``succeeded``, and a workflow is described in ``workflow`` alone.
"""
