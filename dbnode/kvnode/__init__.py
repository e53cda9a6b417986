"""The database node: the replication core, its shell, the request service and its doors.

`kvnode.core` decides and is pure; `kvnode.shell` does: files, connections, coordination; `kvnode.service` takes typed
operations in and gives results out; `kvnode.doors` are the protocols on it. Imports kvstore, kvcoord, kvproto, kvresp, kvcommon.
"""
