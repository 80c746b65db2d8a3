# SPDX-License-Identifier: Apache-2.0
"""Success or failure, and why? What the end of a job means.

Pure code. Each error that carries a result stands beside the code that raises it.

No public interface: what is in here may change in any release.
"""
