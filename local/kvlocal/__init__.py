"""A cluster as local processes, from the same KVCluster manifest: `make run`. May import everything.

Belongs here: what stands in for Kubernetes and the operator on one machine (processes, ports, folders, birth), and the
demonstration. Does not: anything that a real cluster needs. Keep this module empty: every child process imports it.
"""
