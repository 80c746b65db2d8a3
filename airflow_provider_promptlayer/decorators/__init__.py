# SPDX-License-Identifier: Apache-2.0
"""TaskFlow: tasks that run a workflow with what a function returns.

The public interface is :mod:`.promptlayer`; the other modules may change in any release.
"""
