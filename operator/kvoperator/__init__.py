"""The operator: makes and keeps what a KVCluster asks for. Imports kvcoord, kvproto, kvcommon.

Pure, below: spec, status, crd, names, quantity, builders/, snapshot, observe, actions, plans/, planner. Doing, above: kube (the
only one that knows the kubernetes client), gather, link, apply, worker, manager, lease, handlers (the only one that
knows kopf), main. docs/operator.md says how it decides.
"""
