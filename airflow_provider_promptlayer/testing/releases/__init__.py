# SPDX-License-Identifier: Apache-2.0
"""Prompt templates, and what a test does with versions and labels, in the local PromptLayer.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
