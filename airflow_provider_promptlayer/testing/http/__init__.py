# SPDX-License-Identifier: Apache-2.0
"""The HTTP side of the local PromptLayer: routes, validation of requests, connections."""
