# SPDX-License-Identifier: Apache-2.0
"""What lands in XCom? Outputs by node, in a form that every supported Airflow can store.

No public interface: what is in here may change in any release.
"""
