# SPDX-License-Identifier: Apache-2.0
"""When is it polled again? Is it retried? Pure decisions, which are handed the time.

No public interface: what is in here may change in any release.
"""
