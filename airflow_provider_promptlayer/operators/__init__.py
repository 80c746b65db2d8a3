# SPDX-License-Identifier: Apache-2.0
"""Operators that run PromptLayer workflows and evaluations, and push what they left behind.

The public interface is :mod:`.promptlayer`; the other modules may change in any release.
"""
