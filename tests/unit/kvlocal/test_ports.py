"""Ports: remembered, wanted, free."""

import random
import socket

import pytest

from kvcommon.errors import ConfigurationError
from kvlocal.ports import FIRST, HOST, LAST, assign, is_free


def test_a_remembered_port_is_kept() -> None:
    """A second run has the first one's addresses."""
    assert assign(["a"], {"a": 21001}, {"a": 7400}, random.Random(1), lambda _: True) == {"a": 21001}


def test_a_wanted_port_is_taken_on_the_first_run() -> None:
    """The router's well-known port is used when it can be."""
    assert assign(["a"], {}, {"a": 7400}, random.Random(1), lambda _: True) == {"a": 7400}


def test_a_port_that_somebody_else_has_is_not_used() -> None:
    """Neither the remembered nor the wanted port is insisted on."""
    chosen = assign(["a"], {"a": 21001}, {"a": 7400}, random.Random(1), lambda port: port not in {21001, 7400})

    assert FIRST <= chosen["a"] <= LAST
    assert chosen["a"] != 21001


def test_no_two_names_get_one_port() -> None:
    """Also when both remember the same."""
    names = [f"n{i}" for i in range(50)]

    chosen = assign(names, dict.fromkeys(names, 21001), {}, random.Random(1), lambda _: True)

    assert len(set(chosen.values())) == len(names)


def test_no_free_port_is_said() -> None:
    """Not an endless search."""
    with pytest.raises(ConfigurationError, match="no free port"):
        assign(["a"], {}, {}, random.Random(1), lambda _: False)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    """is_free asks the kernel."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        assert not is_free(other.getsockname()[1])
