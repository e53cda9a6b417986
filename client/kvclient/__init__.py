"""The client library, asyncio and blocking, and the command line tool kvctl. Imports kvproto and kvcommon."""
