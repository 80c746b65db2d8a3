# SPDX-License-Identifier: Apache-2.0
"""Workflows and their runs in the local PromptLayer.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
