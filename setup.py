# SPDX-License-Identifier: Apache-2.0
"""The project's web addresses, which are those of the repository that builds the package.

Everything else is in pyproject.toml. Airflow links Admin → Providers to the address that is called
exactly ``Documentation``.
"""

import os

from setuptools import setup

repository = os.environ.get("REPOSITORY_URL", "").rstrip("/")
addresses = {
    "Documentation": f"{repository}/blob/main/docs/index.md",
    "Changelog": f"{repository}/blob/main/CHANGELOG.md",
    "Source": repository,
    "Issues": f"{repository}/issues",
}
setup(
    project_urls={
        **(addresses if repository else {}),
        "PromptLayer documentation": "https://docs.promptlayer.com",
    }
)
