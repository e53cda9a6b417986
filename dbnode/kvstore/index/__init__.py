"""Indexes: from a key to where its newest committed record is. One interface, `kvstore.index.base.Index`.

Belongs here: what finds records. Does not: reading them, deciding what is committed.
"""
