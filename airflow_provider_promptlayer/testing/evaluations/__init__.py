# SPDX-License-Identifier: Apache-2.0
"""Tables, scorecards and reports in the local PromptLayer.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
