# SPDX-License-Identifier: Apache-2.0
"""The HTTP side of the local PromptLayer: the server, what surrounds every endpoint, validation.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
