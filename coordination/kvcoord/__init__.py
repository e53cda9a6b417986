"""Coordination: cluster identity, map, partition states, members, words of death; one contract, three implementations.

`kvcoord.contract` is what others use; `kvcoord.zookeeper` (kazoo), `kvcoord.sqlite` (one file shared by local
processes) and `kvcoord.memory` (tests, simulation) keep it. `kvcoord.open` chooses one by URL. Losing a race is a
value, being unable to ask is an exception. Imports kvcommon only; `kvcoord.topology` alone knows the protos, too.
"""
