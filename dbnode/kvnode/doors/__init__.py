"""The protocols that a node speaks to clients, each a thin file on `kvnode.service`: gRPC."""
