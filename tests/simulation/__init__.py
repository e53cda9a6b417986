"""The replication core, N replicas at once, in one seeded virtual-time loop with faults.

`cluster.simulate(options)` is a whole run; `python -m tests.simulation --seed N` replays one and prints its timeline.
`loop` is time, `disk`, `network` and `coordination` are models of the world, `node` is a machine with the process that
carries out the core's effects, `service` stands for the node's request path, `clients` make the load, `faults` the
trouble, and `checks` watches the invariants of docs/correctness.md with a view over everything at true times.

`whole` and `store` are other worlds: whole clusters, and stores that copy each other's logs. docs/simulation.md has
what is real in each, and what a model.
"""
