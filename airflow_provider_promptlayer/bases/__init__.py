# SPDX-License-Identifier: Apache-2.0
"""The Airflow base classes: how a task submits a job, waits for it, and pushes its outputs.

Start reading at :mod:`.kind`, the value that the base classes are handed; then :mod:`.waiter`, and
:mod:`.submitter` for the tasks that start their job themselves.

No public interface: what is in here may change in any release.
"""
