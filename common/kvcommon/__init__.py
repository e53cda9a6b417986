"""What every part shares: slot hash, map, versions, numbers, errors, clock, settings, logging, probes.

Belongs here: small, stable things that at least two parts need. Does not: anything that knows a protocol, a store or
Kubernetes. Imports none of ours.
"""
