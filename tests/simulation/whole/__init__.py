"""A whole cluster in one thread of virtual time: the shipped node, store, client and router, on a world that does its worst.

Real are: kvnode's host, service, pipeline door and replication over its own TCP code; kvstore on a faulty file system;
kvclient's engine and frames; kvrouter's engine and door; kvcoord's views over coordination in memory. Models are: time and
TCP (`world`), disks (`tests.support.faulty_files`), coordination (`kvcoord.memory`) and the gRPC hop before a router.

What fails is a seed's (`faults`), or a scenario's (`scenarios`, in the words of `script`).
"""
