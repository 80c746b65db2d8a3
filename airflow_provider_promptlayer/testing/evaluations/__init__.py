# SPDX-License-Identifier: Apache-2.0
"""Tables, scorecards and reports in the local PromptLayer."""
