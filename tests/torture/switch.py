"""The network between the hosts: a process that passes every packet on, or loses it, or keeps it for a while.

Runs as `python -m tests.torture.switch <socket> <hosts as JSON: name -> number>`. Each host is a network namespace with one TUN
device, address 198.18.0.<number> (RFC 2544 keeps that range for tests); the other ends of the devices are here. The first
host is the caller's own namespace. No bridge, no netem, no firewall: the kernel needs TUN, and who did what to which packet is
counted in one place.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from itertools import count

NETWORK = "198.18.0."
MTU = 9000
CLONE_NEWNET = 0x40000000  # <sched.h>
TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
IFF_TUN_WITHOUT_INFO = 0x1001
AT_ONCE = 64  # packets taken from one host before the next has its turn
KEPT = 4096  # packets kept back at most; more are lost, as by any queue

libc = ctypes.CDLL(None, use_errno=True)

Pair = tuple[int, int]


class Switch:
    """Takes packets from every host and has rules for pairs of them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._epoll = select.epoll()
        self._epoll.register(control, select.EPOLLIN)
        self._devices: dict[int, int] = {}  # host number -> descriptor
        self._rules: dict[Pair, tuple[float, float, float]] = {}  # share lost, seconds kept, up to so many more
        self._lost: dict[Pair, int] = defaultdict(int)
        self._kept: dict[Pair, int] = defaultdict(int)
        self._queue: list[tuple[float, int, int, bytes]] = []  # due, order, to, packet
        self._order = count()
        self._rng = random.Random()

    def plug(self, number: int, *, own: bool) -> int:
        """Make a host, in this namespace if it is the caller's `own`; a descriptor of its namespace."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        if not own:
            _check(libc.unshare(CLONE_NEWNET))
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"torture0", IFF_TUN_WITHOUT_INFO))
        for command in (
            "ip link set lo up",
            f"ip address add {NETWORK}{number}/24 dev torture0",
            f"ip link set torture0 mtu {MTU} txqueuelen 5000 up",
        ):
            subprocess.run(command.split(), check=True)
        there = os.open("/proc/self/ns/net", os.O_RDONLY)
        _check(libc.setns(here, CLONE_NEWNET))
        os.close(here)
        self._devices[number] = device
        self._epoll.register(device, select.EPOLLIN)
        return there

    def run(self) -> None:
        """Until the caller is gone."""
        control = self._control.fileno()
        numbers = {device: number for number, device in self._devices.items()}
        while True:
            wait = max(self._queue[0][0] - time.monotonic(), 0.0) if self._queue else None
            for descriptor, _ in self._epoll.poll(wait):
                if descriptor in numbers:
                    self._take(descriptor)
                elif descriptor == control and not self._obey():
                    return
            while self._queue and self._queue[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self._queue)
                self._deliver(to, packet)

    def _take(self, device: int) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = os.read(device, 65535)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4 or packet[19] not in self._devices:
                continue  # the kernel's IPv6 chatter, or nobody
            pair = packet[15], packet[19]
            rule = self._rules.get(pair)
            if rule is None:
                self._deliver(pair[1], packet)
            else:
                self._treat(pair, rule, packet)

    def _treat(self, pair: Pair, rule: tuple[float, float, float], packet: bytes) -> None:
        lost, kept, jitter = rule
        if self._rng.random() < lost or len(self._queue) >= KEPT:
            self._lost[pair] += 1
            return
        self._kept[pair] += 1
        due = time.monotonic() + kept + jitter * self._rng.random()
        heapq.heappush(self._queue, (due, next(self._order), pair[1], packet))

    def _deliver(self, to: int, packet: bytes) -> None:
        try:
            os.write(self._devices[to], packet)
        except OSError:  # its queue is full: lost, as on any network
            self._lost[0, to] += 1

    def _obey(self) -> bool:
        """Take new rules, [[from, to, lost, kept, jitter], ...], and tell what came of the old ones; False at the end."""
        message = self._control.recv(1 << 20)
        if not message:
            return False
        self._rules = {(a, b): (lost, kept, jitter) for a, b, lost, kept, jitter in json.loads(message)}
        told = [[*pair, self._lost[pair], self._kept[pair]] for pair in {*self._lost, *self._kept}]
        self._control.send(json.dumps(told).encode())
        return True


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Make the hosts, say where their namespaces are, and pass packets on."""
    control = socket.socket(fileno=int(sys.argv[1]))
    switch = Switch(control)
    numbers: dict[str, int] = json.loads(sys.argv[2])
    namespaces = {name: switch.plug(n, own=i == 0) for i, (name, n) in enumerate(numbers.items())}
    control.send(json.dumps(namespaces).encode())
    switch.run()


if __name__ == "__main__":
    main()
