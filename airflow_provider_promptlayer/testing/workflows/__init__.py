# SPDX-License-Identifier: Apache-2.0
"""Workflows and their runs in the local PromptLayer."""
