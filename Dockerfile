# One image for every role; the role is its command: kvnode, kvrouter, kvoperator or kvctl.
#
# What is installed comes from the lock files with their hashes. A change of code rebuilds the wheel and the last
# layer (a megabyte or two); a change of dependencies the layer before it. No heredocs and no cache mounts, so that old
# builders (buildah 1.28) build it too.

FROM docker.io/library/python:3.13-slim AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The final stage has the same base, so the interpreter that the venv points to is there too, wherever the base keeps it.
RUN python -m venv --without-pip /opt/kvcluster
COPY requirements-runtime.lock /build/
# Code compiled to unchecked .pyc: the root file system is read-only, and a copied layer's times mean nothing. Type
# stubs, the packages' own tests and the Kubernetes client's second, asyncio half are of no use at run time.
RUN pip --python /opt/kvcluster/bin/python install -q --no-compile --require-hashes -r /build/requirements-runtime.lock \
    && find /opt/kvcluster -depth \( -name tests -o -name test -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \) \
         -path '*/site-packages/*' -exec rm -rf {} + \
    && rm -rf /opt/kvcluster/lib/python*/site-packages/kubernetes/aio \
    && /opt/kvcluster/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/kvcluster/lib

FROM dependencies AS project
COPY requirements-build.lock /build/
RUN python -m venv --without-pip /build/venv \
    && pip --python /build/venv/bin/python install -q --require-hashes -r /build/requirements-build.lock
WORKDIR /build/source
COPY . .
# --root leaves the project's own files apart from its dependencies, at the paths they are to have in the image.
RUN /build/venv/bin/python -m hatchling build -t wheel -d /build/wheels \
    && pip --python /opt/kvcluster/bin/python install -q --no-compile --no-deps --no-index --root /build/root /build/wheels/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /build/root /build/root

FROM docker.io/library/python:3.13-slim
# tini is process 1: it reaps children, passes signals on, and lets the role's process be killed inside its pod.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 kvcluster \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin kvcluster \
    && install -d -o 10001 -g 10001 -m 0700 /data
LABEL org.opencontainers.image.title="KVCluster" \
      org.opencontainers.image.description="A partitioned, replicated key-value database that Kubernetes runs for you" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/kvcluster/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# gRPC, replication, the Redis protocol, HTTP for probes and metrics
EXPOSE 7400 7401 6379 7480
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["kvctl", "--help"]
COPY --from=dependencies /opt/kvcluster /opt/kvcluster
COPY --from=project /build/root /
