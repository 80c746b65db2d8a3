# SPDX-License-Identifier: Apache-2.0
"""What does an answer mean? PromptLayer's API as pure code.

Nothing in here imports Airflow, opens a socket, reads a clock or sleeps. Builders turn arguments
into a :class:`~.http.Call`, whose parser turns ``(status, headers, body)`` into a typed result or
an exception, so an answer means the same in every mode of waiting.

No public interface: what is in here may change in any release.
"""
