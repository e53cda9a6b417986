"""Decisions, one file per question: pure functions of a Snapshot. planner.py puts them together."""
