"""What the replication core's effects become: frames, connections, the log's writer thread, coordination calls.

Belongs here: doing. Does not: deciding; an `if` about the protocol belongs in `kvnode.core`.
"""
