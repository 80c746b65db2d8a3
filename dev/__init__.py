# SPDX-License-Identifier: Apache-2.0
"""Tools for working on this provider; never part of the wheel."""
