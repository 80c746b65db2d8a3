# SPDX-License-Identifier: Apache-2.0
"""Triggers: the part of a wait that runs in Airflow's triggerer.

The public interface is :mod:`.promptlayer`; the other modules may change in any release.
"""
