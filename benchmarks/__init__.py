# SPDX-License-Identifier: Apache-2.0
"""Measure what waiting costs: `make bench`. Ratios on one machine in one run, never a test."""
