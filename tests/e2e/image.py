"""The image under test, built only when what it is made of has changed since the last time on this cluster."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.kube import Kube
from tests.e2e.platforms import Platform

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "kvcluster"
TAG = "e2e"
MARK = ROOT / ".kvcluster" / "e2e-image.json"


def ensure(platform: Platform, kube: Kube) -> str:
    """Have the image on every node; its name. E2E_IMAGE names one that is there already, and is taken as it is."""
    if given := os.environ.get("E2E_IMAGE"):
        return given
    name = f"{REPOSITORY}:{TAG}"
    cluster = kube.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    mark = {"context": context_digest(), "cluster": cluster, "image": name}
    if _last() != mark:
        platform.build(name, ROOT)
        MARK.parent.mkdir(exist_ok=True)
        MARK.write_text(json.dumps(mark))
    return name


def context_digest() -> str:
    """SHA-256 over names and contents of the files that .dockerignore lets into the build."""
    digest = hashlib.sha256()
    for path in sorted(_context()):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _context() -> Iterator[Path]:
    ignore = ROOT / ".dockerignore"
    yield ignore
    for line in ignore.read_text().splitlines():
        if line.startswith("!"):
            place = ROOT / line[1:]
            found = place.rglob("*") if place.is_dir() else [place]
            yield from (path for path in found if path.is_file() and "__pycache__" not in path.parts)


def _last() -> object:
    try:
        return json.loads(MARK.read_text())
    except (OSError, ValueError):
        return None
