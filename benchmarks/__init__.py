# SPDX-License-Identifier: Apache-2.0
"""What waiting costs, measured: `make bench`. Ratios on one machine in one run, never a test."""
