"""A gRPC server on libnghttp2: HTTP/2 in C (ngh2), gRPC's few rules here. A `grpc.aio.Server` for services generated for one.

Why: a unary call costs grpc.aio some 150 to 300 µs of CPU, most of it in its own coroutines and polling; see docs/benchmarks.md.
"""
