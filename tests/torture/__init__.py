"""Torture: a real cluster of processes with a real ZooKeeper ensemble, hurt at random from a seed, its clients' histories judged.

    python -m tests.torture --seed 7 --rounds 3       # or: make torture

Every server is a process in a network namespace of its own; all packets pass a switch (`switch.py`) that can lose and
delay them. `faults.py` has what is done to them, `nemesis.py` when, `verdict.py` what must hold afterwards.
Belongs here: what needs real processes, sockets, disks and clocks. What can be had in virtual time is in tests/simulation.
"""
