# SPDX-License-Identifier: Apache-2.0
"""How do rows come from and go to files? Formats, checks, and files that are whole or not there.

No public interface: what is in here may change in any release.
"""
