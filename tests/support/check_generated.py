"""Whether `make generate` would change a committed file: the code made of the protos, the CRD and the chart's copy of it.

Run as `python -m tests.support.check_generated`; the files that drifted are named.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = Path("kvproto/v1")
CRD = ROOT / "crds" / "kvclusters.yaml"
CHART_CRD = ROOT / "charts" / "kvcluster" / "crds" / "kvclusters.yaml"


def generate_protos(target: Path) -> None:
    """Generate from proto/ into `target`, exactly as the Makefile does."""
    scripts = str(Path(sys.executable).parent)  # where protoc finds the mypy plugins
    outs = [f"--{kind}_out={target}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
    sources = sorted(str(path) for path in (ROOT / "proto" / PROTOS).glob("*.proto"))
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *outs, *sources]
    env = {**os.environ, "PATH": f"{scripts}:{os.environ.get('PATH', '')}"}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"protoc: {done.stderr}")


def generate_crd() -> str:
    """The CRD as the typed spec gives it."""
    done = subprocess.run(
        [sys.executable, "-m", "kvoperator.crd"], check=False, capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"python -m kvoperator.crd: {done.stderr}")
    return done.stdout


def drifted_protos(made: Path, kept: Path) -> Iterator[str]:
    """Files below `made` and `kept` (the two trees of generated code) that differ, are missing or are left over."""
    names = {path.name for path in (*made.glob("*_pb2*.py*"), *kept.glob("*_pb2*.py*"))}
    for name in sorted(names):
        if not (kept / name).exists():
            yield f"{kept / name} is missing"
        elif not (made / name).exists():
            yield f"{kept / name} has no .proto any more"
        elif (made / name).read_bytes() != (kept / name).read_bytes():
            yield f"{kept / name} is not what its .proto gives"


def drifted_crds(wanted: str) -> Iterator[str]:
    """The CRD's committed copies that are not `wanted`."""
    for path in (CRD, CHART_CRD):
        if not path.exists():
            yield f"{path} is missing"
        elif path.read_text() != wanted:
            yield f"{path} is not what operator/kvoperator's spec gives"


def main() -> int:
    """Compare, say what drifted; the exit status."""
    with tempfile.TemporaryDirectory() as directory:
        generate_protos(Path(directory))
        drifted = list(drifted_protos(Path(directory) / PROTOS, ROOT / "proto" / PROTOS))
    drifted += drifted_crds(generate_crd())
    for fault in drifted:
        print(f"generated: {fault}", file=sys.stderr)
    if drifted:
        print("generated: run `make generate` and commit what it changes", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
