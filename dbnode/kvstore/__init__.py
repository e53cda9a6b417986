"""The storage engine: a segmented, checksummed log and an index over its committed records. A library.

Belongs here: files, formats, recovery, indexes. Does not: network, asyncio, replication, who leads. Imports kvcommon
only. Start at `kvstore.store`; the on-disk format is in docs/storage-format.md.
"""
