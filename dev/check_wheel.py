# SPDX-License-Identifier: Apache-2.0
"""Build the package, check what is to be published, and use the wheel as a user would.

That is in an empty environment, away from this checkout.

pip resolves the wheel's own dependencies here, held to the tested versions by the pins, so a
dependency that is missing from pyproject.toml shows up. The extra `testing` is installed last, to
see what the package does without it. Run as a script with an Airflow version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_promptlayer"
DISTRIBUTION = "airflow-provider-promptlayer"
IN_SDIST = {"CHANGELOG.md", "LICENSE", "setup.cfg", "docs/index.md", "tests/unit/conftest.py"}
"""Some of what a distributor needs, who tests and documents the package from its sources."""


class WheelError(Exception):
    """The wheel is not fit to be published."""


def main() -> int:
    """Return the exit code."""
    pins = ROOT / "dev" / "requirements" / f"airflow-{sys.argv[1]}.txt"
    with tempfile.TemporaryDirectory(prefix="check-wheel-") as scratch:
        try:
            _check(Path(scratch), pins)
        except WheelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def _check(scratch: Path, pins: Path) -> None:
    print("building the source distribution, and the wheel from it", flush=True)
    os.environ["REPOSITORY_URL"] = "https://example.com/repository"
    _run(scratch, sys.executable, "-m", "build", "--outdir", str(scratch), str(ROOT))
    [wheel] = scratch.glob("*.whl")
    [sdist] = scratch.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if missing := IN_SDIST - names:
        raise WheelError(f"{sdist.name} lacks {sorted(missing)}")
    with zipfile.ZipFile(wheel) as archive:
        strange = [
            name
            for name in archive.namelist()
            if not name.startswith((f"{PACKAGE}/", f"{PACKAGE}-"))
        ]
        if strange:
            raise WheelError(f"{wheel.name} holds what is not the package: {strange}")
        for name in ("py.typed", "files/evaluation_page.html"):
            if f"{PACKAGE}/{name}" not in archive.namelist():
                raise WheelError(f"{wheel.name} has no {name}")
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        # Airflow looks for the address of this name.
        if b"\nProject-URL: Documentation, https://example.com/" not in archive.read(metadata):
            raise WheelError(f"{wheel.name} does not say where its documentation is")
    _check_description(scratch, wheel, sdist)

    print(f"installing {wheel.name} into an empty environment", flush=True)
    venv.create(scratch / "env", with_pip=True)
    python = str(scratch / "env" / "bin" / "python")
    _install(scratch, pins, python, str(wheel))
    _run(scratch, python, "-m", "pip", "check")

    where = _run(scratch, python, "-c", f"import {PACKAGE} as p; print(p.__file__, p.__version__)")
    if not where.startswith(str(scratch / "env")):
        raise WheelError(f"imported from somewhere else: {where}")
    providers = _run(scratch, python, "-m", "airflow", "providers", "list", "--output", "plain")
    found = [line for line in providers.splitlines() if line.startswith(DISTRIBUTION)]
    if not found:
        raise WheelError(f"airflow providers list does not name it:\n{providers}")
    print(f"airflow providers list: {' '.join(found[0].split())}")
    _check_extra(scratch, pins, python, wheel)


def _check_description(scratch: Path, *files: Path) -> None:
    print("checking what a package index will show", flush=True)
    venv.create(scratch / "twine", with_pip=True)
    python = str(scratch / "twine" / "bin" / "python")
    pins = ROOT / "dev" / "requirements" / "release.txt"
    _run(scratch, python, "-m", "pip", "install", "--no-compile", "--no-deps", "-r", str(pins))
    _run(scratch, python, "-m", "twine", "check", "--strict", *map(str, files))


def _check_extra(scratch: Path, pins: Path, python: str, wheel: Path) -> None:
    serve = f"from {PACKAGE}.testing import LocalPromptLayer as L\nwith L(tls='trusted'): pass"
    try:
        _run(scratch, python, "-c", serve)
    except WheelError as error:
        if f"pip install '{DISTRIBUTION}[testing]'" not in str(error):
            raise
    else:
        raise WheelError("the local PromptLayer runs without the extra: the check is void")
    print(f"installing {wheel.name}[testing]", flush=True)
    _install(scratch, pins, python, f"{wheel}[testing]")
    _run(scratch, python, "-c", serve)


def _install(scratch: Path, pins: Path, python: str, what: str) -> None:
    # Compiling every module takes longer than the few that are imported here.
    pip_install = (python, "-m", "pip", "install", "--no-compile")
    _run(scratch, *pip_install, "--constraint", str(pins), what)


def _run(cwd: Path, *argv: str) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, "AIRFLOW_HOME": str(cwd / "home"), "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WheelError(f"{' '.join(argv[1:4])} … failed:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
