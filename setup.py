# SPDX-License-Identifier: Apache-2.0
"""The project's web addresses, which are those of the repository that builds the package.

Everything else is in pyproject.toml. Airflow links Admin → Providers to the address that is called
exactly ``Documentation``. README.md links files of the repository, which a package index does not
show: there the links lead to the repository, or are text where it is not known.
"""

import os
import re
from pathlib import Path

from setuptools import setup

repository = os.environ.get("REPOSITORY_URL", "").rstrip("/")
addresses = {
    "Documentation": f"{repository}/blob/main/docs/index.md",
    "Changelog": f"{repository}/blob/main/CHANGELOG.md",
    "Source": repository,
    "Issues": f"{repository}/issues",
}


def on_the_index(link: re.Match[str]) -> str:
    """Return a link of README.md, or a picture, as the package index can show it."""
    mark, text, path = link.groups()
    if repository:
        return f"{mark}[{text}]({repository}/{'raw' if mark else 'blob'}/main/{path})"
    return "" if mark else text


readme = Path("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"(!?)\[([^]]*)\]\((?!https://)([^)]*)\)", on_the_index, readme),
    long_description_content_type="text/markdown",
    project_urls={
        **(addresses if repository else {}),
        "PromptLayer documentation": "https://docs.promptlayer.com",
    },
)
