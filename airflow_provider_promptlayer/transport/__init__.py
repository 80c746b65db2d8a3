# SPDX-License-Identifier: Apache-2.0
"""How does a request reach the wire, and what must not leak? Two transports, one behaviour.

:mod:`.blocking` sends over requests, :mod:`.aio` over aiohttp. A transport sends, returns
``(status, headers, body)`` whatever the status is, and turns its library's exceptions into
:class:`.PromptLayerUnreachableError`. It knows nothing of workflows.

No public interface: what is in here may change in any release.
"""
