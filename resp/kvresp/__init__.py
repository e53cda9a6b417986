"""The Redis protocol, for the doors of node and router: reading commands, the commands' table and meaning, replies.

What belongs here is the same for both: bytes to commands (`reader`), replies to bytes (`replies`), what a command is
(`commands`), what it does to keys (`meaning`: pure), what concerns the connection alone (`session`), a client's
connection (`connection`). Where keys are and who may write them is the doors' matter. Imports kvcommon, hiredis, asyncio.
"""
