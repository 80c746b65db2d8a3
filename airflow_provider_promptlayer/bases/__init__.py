# SPDX-License-Identifier: Apache-2.0
"""The Airflow base classes: how a task submits a job, waits for it and pushes what came of it.

No public interface: what is in here may change in any release.
"""
