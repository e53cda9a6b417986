"""The public API: protos and what `make generate` makes of them. Imports none of ours."""
