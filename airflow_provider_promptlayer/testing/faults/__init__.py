# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a request, which requests it happens to, and how it is delivered.

No public interface: import names from :mod:`airflow_provider_promptlayer.testing`.
"""
