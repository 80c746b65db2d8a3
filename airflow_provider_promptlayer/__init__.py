# SPDX-License-Identifier: Apache-2.0
"""PromptLayer provider for Apache Airflow."""

__version__ = "0.1.0"

__all__ = ["__version__"]
