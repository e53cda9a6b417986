"""A cluster as local processes, from the same KVCluster manifest: `make run`. May import everything."""
