"""Tests of the node: its core by scenarios, its shell, service and doors."""
