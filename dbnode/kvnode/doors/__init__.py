"""The protocols that a node speaks to clients, each thin on `kvnode.service`: gRPC, batches as frames, Redis."""
