# SPDX-License-Identifier: Apache-2.0
"""How is no second run started? What is noted before a job is submitted, and what a retry does.

The decisions are pure; :mod:`~.task_state` alone talks to Airflow, which keeps the records.

No public interface: what is in here may change in any release.
"""
