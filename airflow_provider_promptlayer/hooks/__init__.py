# SPDX-License-Identifier: Apache-2.0
"""The PromptLayer hook.

The public interface is :mod:`.promptlayer`; the other modules may change in any release.
"""
