# SPDX-License-Identifier: Apache-2.0
"""Faults that a request can meet, which requests meet them, and how they are delivered.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
