# SPDX-License-Identifier: Apache-2.0
"""Two ways to carry a request: :mod:`.blocking` over requests, :mod:`.aio` over aiohttp.

A transport sends, hands back ``(status, headers, body)`` whatever the status is, and turns its
library's exceptions into :class:`PromptLayerUnreachableError`. It knows nothing of workflows.
"""
