"""Where a server listens, real or ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Server:
    """A Redis server; `version` is Redis's, of ours the one it says it is."""

    host: str
    port: int
    version: tuple[int, ...]

    @property
    def address(self) -> tuple[str, int]:
        """For a socket."""
        return self.host, self.port
