"""The data folder of a local cluster: what is where, what it remembers, and who holds it.

cluster.json      who the cluster is, its shape and its ports (format 1)
coordination.db   SQLite coordination, unless --zookeeper is given
data/<pod>/       a node's log
logs/<pod>.log    what a process said
run/<pod>         which run a node is (in Kubernetes: /dev/termination-log)
lock              held by the kvlocal that runs the cluster
"""

import fcntl
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from kvcommon.errors import ConfigurationError
from kvlocal.shape import Shape

FORMAT = 1
PARTS = ("data", "logs", "run")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What cluster.json holds."""

    cluster_id: str  # UUID
    shape: Shape
    ports: Mapping[str, int] = field(default_factory=dict)
    zookeeper: str = ""  # host:port,...; empty: SQLite


class Folder:
    """One cluster's data folder; a context manager that holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Make the folder and lock it; ConfigurationError when another kvlocal has it or it is something else."""
        if self.path.exists() and not self._file.exists() and {p.name for p in self.path.iterdir()} - {"lock", *PARTS}:
            raise ConfigurationError(f"{self.path} is not empty and holds no cluster: name another folder with --data")
        for part in PARTS:
            (self.path / part).mkdir(parents=True, exist_ok=True)
        lock = (self.path / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise ConfigurationError(
                f"the cluster in {self.path} is running already (process {holder}): end it first, or name another folder with --data"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def _file(self) -> Path:
        return self.path / "cluster.json"

    def data(self, pod: str) -> Path:
        return self.path / "data" / pod

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def run(self, pod: str) -> Path:
        return self.path / "run" / pod

    def coordination_url(self, remembered: Remembered) -> str:
        """Where the cluster's coordination data is."""
        if remembered.zookeeper:
            return f"zookeeper://{remembered.zookeeper}/kvcluster/{remembered.cluster_id}"
        return f"sqlite://{self.path / 'coordination.db'}"

    def recall(self) -> Remembered | None:
        """What an earlier run left; ConfigurationError when it can't be read."""
        try:
            data = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigurationError(f"{self._file} is damaged ({error}): remove {self.path} to begin anew") from error
        if data.get("format") != FORMAT:
            raise ConfigurationError(f"{self._file} has format {data.get('format')}, this kvlocal knows {FORMAT}")
        return Remembered(data["clusterId"], Shape(**data["shape"]), data["ports"], data["zookeeper"])

    def remember(self, what: Remembered) -> None:
        """Replace cluster.json, whole or not at all."""
        data = {
            "format": FORMAT,
            "clusterId": what.cluster_id,
            "shape": what.shape.to_json(),
            "ports": dict(what.ports),
            "zookeeper": what.zookeeper,
        }
        draft = self._file.with_suffix(".tmp")
        with draft.open("w") as file:
            json.dump(data, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._file)


def reconcile(path: Path, stored: Remembered | None, shape: Shape, zookeeper: str, new_id: uuid.UUID) -> Remembered:
    """What is to be remembered for this run: the stored cluster, or a new one.

    Raises ConfigurationError when the stored cluster was made from another spec.
    """
    if stored is None:
        return Remembered(str(new_id), shape, zookeeper=zookeeper)
    differences = list(shape.differences(stored.shape))
    if zookeeper != stored.zookeeper:
        names = (zookeeper or "the SQLite file", stored.zookeeper or "the SQLite file")
        differences.append("coordination is {}, was {}".format(*names))
    if differences:
        raise ConfigurationError(
            f"the cluster in {path} was made from another spec ({'; '.join(differences)}): a local cluster is not changed. "
            f"Give it the spec it was made with, or begin anew with another --data or by removing {path}"
        )
    return stored
