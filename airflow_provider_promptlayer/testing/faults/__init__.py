# SPDX-License-Identifier: Apache-2.0
"""Faults that the local PromptLayer shows on demand.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
