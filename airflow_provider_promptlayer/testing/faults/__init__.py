# SPDX-License-Identifier: Apache-2.0
"""Faults that the local PromptLayer shows on demand."""
