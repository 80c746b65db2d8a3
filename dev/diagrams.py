# SPDX-License-Identifier: Apache-2.0
"""Draw the Mermaid diagrams of docs/, so that its pages need neither a network nor a script.

Run it after a change of a diagram: `python -m dev.diagrams`. It needs `mmdc`, of the npm package
@mermaid-js/mermaid-cli, in PATH. A drawing is named after the digest of its text: the build of the
documentation fails where a drawing is not that of the text.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def drawing_of(diagram: str) -> Path:
    """Return where the drawing of this text is, or has to be."""
    digest = hashlib.sha256(diagram.strip().encode()).hexdigest()
    return DOCS / "images" / f"diagram-{digest[:12]}.svg"


def main() -> int:
    """Draw what has no drawing yet, and remove drawings of which the text is gone."""
    diagrams = {
        drawing_of(text): text
        for page in DOCS.rglob("*.md")
        for text in re.findall(r"^```mermaid\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    }
    for stale in set((DOCS / "images").glob("diagram-*.svg")) - diagrams.keys():
        stale.unlink()
    for drawing, text in diagrams.items():
        if not drawing.is_file():
            look = ["--theme", "neutral", "--backgroundColor", "white"]
            command = ["mmdc", "--input", "-", "--output", str(drawing), *look, *sys.argv[1:]]
            subprocess.run(command, input=text, text=True, check=True)
            print(drawing.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
