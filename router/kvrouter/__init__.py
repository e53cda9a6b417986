"""The router: kvclient behind a server, fed by coordination. Imports kvclient, kvcoord, kvproto, kvcommon."""
