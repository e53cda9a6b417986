"""The operator: makes and keeps what a KVCluster asks for. Imports kvcoord, kvproto, kvcommon."""
