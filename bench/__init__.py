"""Measurements: KVCluster beside etcd and beside the bare limits, in one run; `python -m bench --help`.

Belongs here: load, peers, and the table in docs/benchmarks.md. Does not: anything that a test asserts.
"""
