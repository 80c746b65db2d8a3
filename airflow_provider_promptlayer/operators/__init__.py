# SPDX-License-Identifier: Apache-2.0
"""Operators that run PromptLayer workflows and fetch what they left behind."""
