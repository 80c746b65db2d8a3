# SPDX-License-Identifier: Apache-2.0
"""Sensors that wait for PromptLayer.

The public interface is :mod:`.promptlayer`; the other modules may change in any release.
"""
