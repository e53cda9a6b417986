"""What a person asks for: the spec of a KVCluster as pydantic models. The CRD is generated from them (crd.py).

Fields have the manifest's names (camelCase), so that model, CRD and documentation agree letter by letter. Rules that
compare fields, or old with new, are CEL in the CRD; those that need no old value are checked here too, for manifests
that no API server has seen (`make run`).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kvcommon.errors import ConfigurationError
from kvcommon.numbers import MIN_FREE_MIB, MIN_VOLUME_MIB, default_min_in_sync
from kvoperator.quantity import parse_quantity

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
HOSTS_PATTERN = r"^[^,:/\s]+:[0-9]+(,[^,:/\s]+:[0-9]+)*$"
DEFAULT_ZOOKEEPER_IMAGE = "docker.io/library/zookeeper:3.9"
DEFAULT_ZOOKEEPER_REPLICAS = 3
DEFAULT_ZOOKEEPER_SIZE = "1Gi"

Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value),
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=32),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]
Size = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=32)]
ImageName = Annotated[str, StringConstraints(min_length=1, max_length=512)]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=253)]


def rule(expression: str, message: str) -> dict[str, str]:
    """One CEL rule of the CRD, with the sentence a person reads when it refuses."""
    return {"rule": expression, "message": message}


def rules(*each: dict[str, str]) -> dict[str, Any]:
    """CEL rules as a schema's extension."""
    return {"x-kubernetes-validations": list(each)}


def _fixed(field: str, why: str, otherwise: str = "''") -> dict[str, str]:
    """A field that keeps its value; `otherwise` is the CEL of what leaving it out means."""
    new, old = (f"(has({s}.{field}) ? {s}.{field} : {otherwise.replace('self', s)})" for s in ("self", "oldSelf"))
    return rule(f"{new} == {old}", why)


class Model(BaseModel):
    """Base of all parts of the spec: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Model):
    """What a container asks for and may use, as Kubernetes means it."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict, max_length=16, description="What the scheduler sets aside: cpu, memory, ..."
    )
    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=16, description="What it may use at most.")


_GROW_ONLY = rule(
    "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
    "size: a volume can't shrink; ask for the same size or a larger one",
)
_MIN_SIZE = f"{MIN_VOLUME_MIB}Mi"
_TOO_SMALL = (
    f"a node takes no write while less than {MIN_FREE_MIB}Mi of its volume are free; ask for {_MIN_SIZE} or more"
)
_LARGE_ENOUGH = rule(
    f"quantity(self.size).compareTo(quantity('{_MIN_SIZE}')) >= 0", f"storage.size is too small: {_TOO_SMALL}"
) | {"messageExpression": f"'storage.size is ' + self.size + ': {_TOO_SMALL}'"}
_CLASS_FIXED = _fixed(
    "storageClassName", "storageClassName can't be changed: volumes stay in the class they were made in"
)


class Storage(Model):
    """The volume of each database node."""

    model_config = ConfigDict(json_schema_extra=rules(_LARGE_ENOUGH, _GROW_ONLY, _CLASS_FIXED))

    size: Size = Field(
        "10Gi",
        description=f"Of each replica's volume, {_MIN_SIZE} or more. It can grow, where the class allows it, never shrink.",
    )
    storageClassName: ClassName | None = Field(None, description="The cluster's default class when left out.")  # noqa: N815 - the manifest's name
    retention: Literal["Retain", "Delete"] = Field(
        "Retain",
        description="What becomes of the volumes, ZooKeeper's too, when the KVCluster is deleted: kept for a KVCluster "
        "of the same name to take up again, or deleted with it.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Storage":
        if parse_quantity(self.size) < parse_quantity(_MIN_SIZE):
            raise ValueError(f"storage.size is {self.size}: {_TOO_SMALL}")
        return self


class ZooKeeperStorage(Model):
    """The volume of each ZooKeeper member."""

    model_config = ConfigDict(json_schema_extra=rules(_GROW_ONLY, _CLASS_FIXED))

    size: Size = Field(
        DEFAULT_ZOOKEEPER_SIZE,
        description="Of each member's volume. It can grow, where the class allows it, never shrink.",
    )
    storageClassName: ClassName | None = Field(None, description="The cluster's default class when left out.")  # noqa: N815 - the manifest's name


class ZooKeeper(Model):
    """The coordination service: an ensemble made for this cluster, or one that is there already."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.replicas) || self.replicas % 2 == 1",
                "zookeeper.replicas must be odd (1, 3, 5 or 7): an even ensemble survives no more failures than the "
                "odd one below it",
            ),
            rule(
                "!has(self.connect) || (!has(self.replicas) && !has(self.storage) && !has(self.resources) && "
                "!has(self.image))",
                "zookeeper: give either connect, for an ensemble of your own, or replicas, storage, resources and "
                "image, for one made here",
            ),
            rule(
                "has(self.connect) == has(oldSelf.connect)",
                "zookeeper.connect can't be added or removed: the coordination data stays in the ensemble it was made in",
            ),
            _fixed("replicas", "zookeeper.replicas can't be changed yet", str(DEFAULT_ZOOKEEPER_REPLICAS)),
            rule(
                "has(self.storage) || !has(oldSelf.storage)",
                "zookeeper.storage can't be removed: its volumes are there and can't shrink",
            ),
            rule(
                "!has(self.storage) || has(oldSelf.storage) || (!has(self.storage.storageClassName) && "
                f"quantity(self.storage.size).compareTo(quantity('{DEFAULT_ZOOKEEPER_SIZE}')) >= 0)",
                f"zookeeper.storage: the volumes were made with {DEFAULT_ZOOKEEPER_SIZE} in the default class; they can "
                "only grow, in their class",
            ),
        )
    )

    replicas: Annotated[int, Field(ge=1, le=7)] | None = Field(
        None, description=f"Members of the ensemble, odd; {DEFAULT_ZOOKEEPER_REPLICAS} when left out."
    )
    storage: ZooKeeperStorage | None = Field(None, description="The members' volumes.")
    resources: Resources | None = Field(None, description="Of each member.")
    image: ImageName | None = Field(None, description=f"{DEFAULT_ZOOKEEPER_IMAGE} when left out.")
    connect: Annotated[str, StringConstraints(pattern=HOSTS_PATTERN, max_length=1024)] | None = Field(
        None,
        description="An ensemble of your own, as host:port,host:port. One folder is made there, /kvcluster/<status.clusterId>; "
        "it stays when the KVCluster is deleted.",
    )

    @property
    def managed(self) -> bool:
        """Whether the ensemble is ours to make."""
        return self.connect is None

    @property
    def members(self) -> int:
        """Size of the ensemble made here; 0 when it is someone else's."""
        if not self.managed:
            return 0
        return DEFAULT_ZOOKEEPER_REPLICAS if self.replicas is None else self.replicas

    @model_validator(mode="after")
    def _check(self) -> "ZooKeeper":
        if self.replicas is not None and self.replicas % 2 == 0:
            raise ValueError(f"zookeeper.replicas is {self.replicas}: it must be odd (1, 3, 5 or 7)")
        if self.connect and any(part is not None for part in (self.replicas, self.storage, self.resources, self.image)):
            raise ValueError("zookeeper: give either connect or replicas, storage, resources and image, not both")
        return self


class Router(Model):
    """The routers: what applications that don't know the map connect to."""

    replicas: int = Field(2, ge=0, le=100, description="How many. `kubectl scale kvc/<name>` changes this number.")
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(  # noqa: N815 - the manifest's name
        "ClusterIP", description="Of the Service named as the cluster."
    )
    resources: Resources | None = Field(None, description="Of each router.")


class KVClusterSpec(Model):
    """What a KVCluster is to be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.minInSync) || self.minInSync <= self.replicas",
                "minInSync must not be larger than replicas: writes would never be accepted",
            ),
            _fixed(
                "partitions", "spec.partitions can't be changed yet: moving slots between partitions is not there", "3"
            ),
            _fixed("replicas", "spec.replicas can't be changed yet: adding and removing replicas is not there", "3"),
            _fixed("minInSync", "spec.minInSync can't be changed yet", "(self.replicas + 1) / 2"),
            _fixed(
                "durability",
                "spec.durability can't be changed: what was acknowledged under one promise has to keep it",
                "'fsync'",
            ),
        )
    )

    partitions: int = Field(3, ge=1, le=1024, description="Replica groups that share the 16384 slots. Fixed for now.")
    replicas: int = Field(3, ge=1, le=7, description="Database nodes of each partition. Fixed for now.")
    minInSync: Annotated[int, Field(ge=1, le=7)] | None = Field(  # noqa: N815 - the manifest's name
        None,
        description="Writes are refused while fewer replicas than this are in sync; (replicas+1)/2 rounded down when "
        "left out: 1 of 2, 2 of 3, 3 of 5. Fixed for now.",
    )
    durability: Literal["fsync", "memory"] = Field(
        "fsync",
        description="What acknowledged means on each replica in sync: on its disk, or written to its page cache. Fixed.",
    )
    storage: Storage = Field(default_factory=lambda: Storage.model_validate({}), description="The nodes' volumes.")
    resources: Resources | None = Field(None, description="Of each database node.")
    image: ImageName | None = Field(None, description="Of nodes and routers; the operator's own when left out.")
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field(  # noqa: N815 - the manifest's name
        "IfNotPresent", description="For all images."
    )
    imagePullSecrets: list[ClassName] = Field(  # noqa: N815 - the manifest's name
        default_factory=list, max_length=8, description="Names of Secrets in the same namespace."
    )
    zookeeper: ZooKeeper = Field(
        default_factory=lambda: ZooKeeper.model_validate({}), description="The coordination service."
    )
    router: Router = Field(default_factory=lambda: Router.model_validate({}), description="The routers.")

    @property
    def min_in_sync(self) -> int:
        """minInSync, or its default for these replicas."""
        return default_min_in_sync(self.replicas) if self.minInSync is None else self.minInSync

    @model_validator(mode="after")
    def _check(self) -> "KVClusterSpec":
        if self.minInSync is not None and self.minInSync > self.replicas:
            raise ValueError(f"minInSync is {self.minInSync} with {self.replicas} replicas: it must not be larger")
        return self


def parse_spec(value: object) -> KVClusterSpec:
    """The spec in a manifest's `spec`.

    Raises:
        ConfigurationError: one sentence for each thing that is wrong, naming field and value.

    """
    try:
        return KVClusterSpec.model_validate({} if value is None else value)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(e) for e in error.errors())) from None


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in ("spec", *error["loc"]))
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown field"
    if error["type"] == "value_error":
        return text
    return f"{where} is {error['input']!r}: {text[0].lower()}{text[1:]}"
