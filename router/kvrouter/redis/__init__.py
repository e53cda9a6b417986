"""The router's Redis door: one plain Redis server in front of all nodes' Redis ports.

Commands go on, and replies come back, as the bytes they are. `replies`, `splitting` and `lanes` are pure; `backend` and
`session` are the connections on either side; `forwarder` brings them together. Imports kvresp, kvcoord, kvcommon.
"""
