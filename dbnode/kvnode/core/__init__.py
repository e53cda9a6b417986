"""The replication protocol of one replica, pure: `Replica.step(event, now) -> effects`.

Belongs here: every decision of the rules in docs/correctness.md, each cited where it is kept. Does not: clocks, sockets, files,
coordination clients, the contents of records. The shell that drives it (`kvnode.shell`) and the simulation
(`tests/simulation`) are its only users. Effects must be carried out in their order: write, then send, then apply.
"""
