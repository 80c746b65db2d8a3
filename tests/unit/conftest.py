# SPDX-License-Identifier: Apache-2.0
"""Keep the unit tests away from the user's Airflow."""

from __future__ import annotations

import os
import tempfile

# Before anything imports Airflow, which reads these once.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="promptlayer-unit-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
