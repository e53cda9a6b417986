"""What the image is built from: .dockerignore shuts out everything that it does not name."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_image_gets_every_package_of_the_distribution() -> None:
    """A part that is in the wheel's list, but not in the context, would be missing in the image without a word."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert {package.split("/")[0] for package in packages} <= allowed
    assert {"Dockerfile", "README.md", "LICENSE", "pyproject.toml"} <= allowed
