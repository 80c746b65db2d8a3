# SPDX-License-Identifier: Apache-2.0
"""Sphinx builds the documentation from this folder: `make docs`. Warnings are errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from airflow_provider_promptlayer import __version__  # noqa: E402
from dev.diagrams import drawing_of  # noqa: E402

project = "PromptLayer provider for Apache Airflow"
author = "The authors of airflow-provider-promptlayer"
copyright = author  # noqa: A001 - Sphinx's own name for it
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"PromptLayer provider {release}"
html_logo = "images/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
copybutton_prompt_text = "$ "

# What is written for Git hosts is understood as it is: anchors of headings, fences of diagrams.
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80

# Every reference to this package has to lead somewhere. Other projects' pages are not here.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!\.?airflow_provider_promptlayer|PromptLayer|\.PromptLayer).*"),
    # What signatures and docstrings name and no user makes or reads.
    (r"py:.*", r".*\.(PollState|RemoteJob|Call|http.Request|Fields|NotSet|Comparison|Page)(\..*)?"),
    (r"py:.*", r".*\.job\.EachOf"),
    (r"py:.*", r".*\.testing\..*\.(Rules|Cases|PlannedCell|PlannedNode)"),
]


is_class = re.compile(
    r"PromptLayer\w*(Operator|Sensor|Hook|Trigger|Error)|LocalPromptLayer"
).fullmatch


class Mermaid(SphinxDirective):
    """Show the drawing of a diagram: `python -m dev.diagrams` has made it from the same text."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"alt": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the image; an error of the build where the text has changed since."""
        drawing = drawing_of("\n".join(self.content))
        if not drawing.is_file():
            raise self.error(f"there is no {drawing.name} yet: run python -m dev.diagrams")
        uri = f"/{drawing.relative_to(ROOT / 'docs')}"
        return [nodes.image(uri=uri, alt=self.options.get("alt", "Diagram"), classes=["diagram"])]


def prepare_source(app: Any, docname: str, source: list[str]) -> None:
    """Leave out the names of tests, and begin a paragraph with each footnote of a table.

    Rows of tables name the tests that hold them, for tests/unit/test_docs.py alone.
    """
    source[0] = re.sub(r"\n(?=[¹²³⁴⁵⁶⁷⁸⁹] )", "\n\n", source[0])
    source[0] = re.sub(r"\s*<!-- (tests|no test): [^>]* -->", "", source[0])


def link_classes(app: Any, doctree: nodes.document) -> None:
    """Link each class of this package that a page names to the reference."""
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if is_class(name) and not isinstance(literal.parent, nodes.reference | pending_xref):
            where = {"refdomain": "py", "reftype": "class", "reftarget": name, "refspecific": True}
            link = pending_xref("", literal.deepcopy(), refdoc=app.env.docname, **where)
            literal.replace_self(link)


def leave_out_machinery(
    app: Any, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Of an operator, a sensor and a trigger, users need the arguments: Airflow calls the rest."""
    tasks = {"reference/operators", "reference/sensors", "reference/triggers"}
    is_of_tasks = app.env.current_document.docname in tasks
    return True if is_of_tasks and not isinstance(member, type) else None


def setup(app: Any) -> None:
    """Register the above (Sphinx calls this)."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", prepare_source)
    app.connect("doctree-read", link_classes)
    app.connect("autodoc-skip-member", leave_out_machinery)
