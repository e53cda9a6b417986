"""One file per Kubernetes resource: pure functions from the spec to the object. Nothing here reads or asks anything."""
