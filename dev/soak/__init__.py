# SPDX-License-Identifier: Apache-2.0
"""A soak: a thousand billed runs in an Airflow of which a part is killed every 15 seconds.

    python -m dev.soak --runs 1000 --seed 7

`load` says what runs, `dags/soak.py` runs it, `kills` says what is killed when, `faults` what the
local PromptLayer does wrong, and `accounting` what became of each run.
"""
