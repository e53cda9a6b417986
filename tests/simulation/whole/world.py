"""An asyncio loop of virtual time whose processes can be paused and killed, and whose TCP can be cut.

Every process is an `Actor`: what runs for it runs in a context that names it. Callbacks of one that is paused wait, those
of one that is dead never run, as with SIGSTOP and SIGKILL: no `finally`, no last word. `create_server` and
`create_connection` are a model of TCP: in order, any delay, one-way cuts, ends that learn of a break in their own time.
Loss, duplication and reordering of packets are TCP's to mend, so above it they are delay or a broken connection. For a while
what is written at once, to a port whose protocol writes whole frames, may be lost, come twice, or late (`Net.unruly`).
"""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar, TypeVarTuple, cast

from kvstore.errors import StoreError
from tests.simulation.record import RAISED, Record, SimulationError
from tests.simulation.timeline import Mark

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

ACTOR: "ContextVar[Actor | None]" = ContextVar("actor", default=None)
END = None  # in an outbox: the sender closed
HANG = 60.0  # seconds after which a dial into a cut gives up by itself


class Actor:
    """A process, or a client. `host` is the name of its machine on the network."""

    def __init__(self, loop: "VirtualLoop", who: str, host: str) -> None:
        self.loop = loop
        self.who = who
        self.host = host
        self.alive, self.paused = True, False
        self.backlog: list[asyncio.Handle] = []  # what waits for the end of a pause, or, once dead, for the end of all
        self.plugs: dict[Plug, None] = {}
        self.context: Context = copy_context()
        self.context.run(ACTOR.set, self)

    def spawn(self, work: Any, name: str = "") -> "asyncio.Task[Any]":
        """Run a coroutine as this process."""
        task = self.loop.create_task(work, name=f"{self.who} {name}", context=self.context)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.loop.call_exception_handler({"message": task.get_name(), "exception": error, "actor": self})

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self.loop.call_later(delay, call, *args, context=self.context)

    def resume(self) -> None:
        self.paused = False
        backlog, self.backlog = self.backlog, []
        self.loop.take_back(backlog)

    def kill(self, *, silently: bool) -> None:
        """It is gone. Its kernel ends its connections, unless the machine is gone, too: then peers find out late."""
        self.alive = self.paused = False
        self.loop.net.release(self)
        for plug in list(self.plugs):
            plug.orphan(silently=silently)


class VirtualLoop(asyncio.BaseEventLoop, Record):
    """Time passes when nothing is left to do. `failure` ends the run at the next turn."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        asyncio.BaseEventLoop.__init__(self)
        Record.__init__(self, seed, verbose=verbose)
        self.net = Net(self)
        self._outside = copy_context()
        self.set_exception_handler(self._defect)

    def after(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Call it later, as the world: whoever is paused or dead then."""
        self.call_later(delay, call, *args, context=self._outside)

    def _defect(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody caught."""
        error = context.get("exception")
        if self.closing or isinstance(error, SimulationError | StoreError):  # a failed disk ends its process elsewhere
            return
        actor = context.get("actor") or ACTOR.get()
        who, what = actor.who if actor else "world", str(context.get("message"))
        if error is None:
            self.broken(who, RAISED, what)
        else:
            self.raised(who, what, error)

    # --- a loop ------------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        """One turn: what is ready, or else what comes next in time."""
        inner = cast("Any", self)
        ready: deque[asyncio.Handle] = inner._ready
        scheduled: list[Any] = inner._scheduled
        if self.failure is not None and not self.closing:
            raise SimulationError(self.failure)
        if not ready:
            if not scheduled:
                raise RuntimeError("nothing is left that could ever happen")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            actor = cast("Any", handle)._context.get(ACTOR)
            if actor is not None and (actor.paused or not actor.alive):
                actor.backlog.append(handle)
            else:
                cast("Any", handle)._run()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """At once: threads are the one thing that is not here."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as e:
            done.set_exception(e)
        return done

    def take_back(self, handles: list[asyncio.Handle]) -> None:
        """Run these next, in their order."""
        cast("Any", self)._ready.extendleft(reversed(handles))

    def end(self, actors: list[Actor]) -> None:
        """Cancel all that is left, so that nothing is torn down behind the back of the next run."""
        self.closing = True
        with suppress(RuntimeError):  # what ended the run may not have stopped the loop yet
            self.run_until_complete(asyncio.sleep(0))
        for task in sorted(asyncio.all_tasks(self), key=lambda t: t.get_name()):
            task.cancel()
        for actor in actors:
            actor.alive = True
            actor.resume()
        for _ in range(20):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=5.0))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    # --- TCP ---------------------------------------------------------------------------------------------------------

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Listen on the port of the calling actor's machine."""
        actor = ACTOR.get()
        assert actor is not None, "only actors listen"
        return self.net.listen(actor, int(port), protocol_factory)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Connect to a machine's port. Raises ConnectionRefusedError; into a cut it takes for ever."""
        actor = ACTOR.get()
        assert actor is not None, "only actors connect"
        return await self.net.connect(actor, str(host), int(port), protocol_factory)


class Net:
    """All connections, and which ways are cut: `cuts[source, target]` counts the reasons."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.base, self.slow_share, self.slow = 0.001, 0.0, 0.5
        self.cuts: dict[tuple[str, str], int] = {}
        self.late: dict[tuple[str, str], float] = {}  # ways that take so many seconds more
        self.unruly: dict[int, float] = {}  # of connections to a port: the share of frames, which TCP would not do
        self.answers_lost: dict[int, float] = {}  # by those who listen on a port: the share, each with its connection
        self.down: set[str] = set()  # machines without power
        self.counts: Counter[str] = Counter()
        self._listeners: dict[tuple[str, int], tuple[Actor, Any]] = {}
        self._plugs: list[Plug] = []

    def delay(self, source: str, target: str) -> float:
        rng = self.loop.stream(f"way {source} {target}")
        late = self.late.get((source, target), 0.0)
        if self.slow_share and rng.random() < self.slow_share:
            return late + rng.random() * self.slow
        return late + self.base * (0.2 + rng.random() * 1.6)

    def is_cut(self, source: str, target: str) -> bool:
        return bool(self.cuts.get((source, target)))

    def listen(self, actor: Actor, port: int, factory: Any) -> Any:
        self._listeners[actor.host, port] = (actor, factory)

        def close() -> None:
            if self._listeners.get((actor.host, port), (None,))[0] is actor:
                del self._listeners[actor.host, port]

        return SimpleNamespace(close=close, sockets=[SimpleNamespace(getsockname=lambda: (actor.host, port))])

    def release(self, actor: Actor) -> None:
        """A dead process listens nowhere."""
        self._listeners = {at: found for at, found in self._listeners.items() if found[0] is not actor}

    async def connect(self, actor: Actor, host: str, port: int, factory: Any) -> tuple[Any, Any]:
        await asyncio.sleep(self.delay(actor.host, host) + self.delay(host, actor.host))
        if self.is_cut(actor.host, host) or self.is_cut(host, actor.host) or host in self.down:
            await asyncio.sleep(HANG)
        found = self._listeners.get((host, port))
        if found is None:
            raise ConnectionRefusedError(f"nobody listens on {host}:{port}")
        server, accept = found
        near, far = Plug(self, actor, port), Plug(self, server, port, accepted=True)
        near.peer, far.peer = far, near
        self._plugs = [p for p in self._plugs if not (p.over and p.peer.over)]
        self._plugs += [near, far]
        self.loop.call_soon(far.begin, accept, context=server.context)
        near.begin(factory)
        return near, near.protocol

    def cut(self, source: str, target: str) -> None:
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        """End one reason; connections that waited go on, or turn out to be broken."""
        self.cuts[source, target] -= 1
        if self.is_cut(source, target):
            return
        for plug in self._plugs:
            if (plug.actor.host, plug.peer.actor.host) == (source, target):
                if self.loop.stream(f"way {source} {target}").random() < 0.4:
                    plug.break_()
                else:
                    plug.flow_all()

    def break_some(self, rng: Random) -> None:
        """Half of all connections end."""
        for plug in self._plugs[::2]:
            if rng.random() < 0.5:
                plug.break_()


class Plug(asyncio.Transport):
    """One end of a connection. What it sends waits in its outbox while the way is cut."""

    def __init__(self, net: Net, actor: Actor, port: int, *, accepted: bool = False) -> None:
        super().__init__()
        self.net, self.actor = net, actor
        self.port, self.accepted = port, accepted
        self.peer: Plug
        self.protocol: Any = None
        self.over = False  # nothing is sent or told any more
        self.link = 0  # of the message that is being written
        self._broken = False
        self._outbox: deque[tuple[bytes | None, int]] = deque()
        self._inbox: deque[tuple[bytes | None, int]] = deque()  # arrived while reading is paused
        self._reading = True
        self._last = 0.0
        actor.plugs[self] = None

    def begin(self, factory: Callable[[], Any]) -> None:
        self.protocol = factory()
        self.protocol.connection_made(self)
        self._deliver()

    # --- as asyncio's transport --------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.peer.actor.host, 0) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.over

    def write(self, data: Any) -> None:
        link, self.link = self.link, 0
        if not self.over and not self._astray(data, link):
            self._send(bytes(data), link)

    def close(self) -> None:
        if not self.over:
            self._send(END, 0)
            self._end()

    def abort(self) -> None:
        if not self.over:
            self._outbox.clear()
            self._send(END, 0)
            self._end()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """What is sent is never too much for this transport."""

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.net.loop.call_soon(self._deliver)

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _astray(self, data: Any, link: int) -> bool:
        """What is written may be lost, come twice, or late, or end the connection; whether it goes its own way."""
        net = self.net
        rng = net.loop.stream(f"astray {self.actor.host} {self.peer.actor.host}")
        if self.accepted and net.answers_lost and rng.random() < net.answers_lost.get(self.port, 0.0):
            net.counts["answers lost"] += 1
            self._note_astray(f"its answer to {self.peer.actor.who} is lost, and their connection ends")
            self.break_()
            return True
        share = net.unruly.get(self.port, 0.0)
        if not share or rng.random() >= share:
            return False
        fate = rng.choice(["lost", "twice", "late"])
        net.counts[f"frames {fate}"] += 1
        self._note_astray(f"its next message to {self.peer.actor.who} is {fate}")
        if fate != "lost":
            late = net.delay(self.actor.host, self.peer.actor.host) + rng.choice([0.0, 0.05, 1.0]) * rng.random()
            net.loop.after(late, self._arrive, bytes(data), link)
        return fate != "twice"

    def _note_astray(self, what: str) -> None:
        if self.net.loop.verbose:
            self.net.loop.note(self.actor.who, what, Mark.ASTRAY)

    def _arrive(self, data: bytes, link: int) -> None:
        """Out of its turn."""
        peer = self.peer
        if not self._broken and not peer.over and not self.net.is_cut(self.actor.host, peer.actor.host):
            peer._inbox.append((data, link))
            self.net.loop.call_soon(peer._deliver, context=peer.actor.context)

    def _send(self, data: bytes | None, link: int) -> None:
        if self._broken:
            return
        loop = self.net.loop
        self._outbox.append((data, link))
        self._last = max(self._last, loop.now + self.net.delay(self.actor.host, self.peer.actor.host))
        loop.after(self._last - loop.now, self._flow)

    def _flow(self) -> None:
        """The oldest of the outbox arrives, if the way is free."""
        if self._outbox and not self.net.is_cut(self.actor.host, self.peer.actor.host):
            peer = self.peer
            peer._inbox.append(self._outbox.popleft())
            self.net.loop.call_soon(peer._deliver, context=peer.actor.context)

    def flow_all(self) -> None:
        while self._outbox and not self.net.is_cut(self.actor.host, self.peer.actor.host):
            self._flow()

    def _deliver(self) -> None:
        """In the receiver's context: hand over what has arrived."""
        while self._inbox and self._reading and not self.over and self.protocol is not None:
            data, link = self._inbox.popleft()
            if data is END:
                self._end()
            else:
                self.link = link
                self.protocol.data_received(data)
                self.link = 0

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self.actor.plugs.pop(self, None)
        if self.protocol is not None:
            self.net.loop.call_soon(self.protocol.connection_lost, None, context=self.actor.context)

    def orphan(self, *, silently: bool) -> None:
        """The process at this end is dead."""
        self.over = True
        self.actor.plugs.pop(self, None)
        if silently:
            self._broken = True
            self._outbox.clear()
            rng = self.net.loop.stream(f"end of {self.actor.who}")
            self.net.loop.after(rng.uniform(0.5, 6.0), self.peer.learn)
        else:
            self.net.loop.after(0.0, self._send, END, 0)

    def break_(self) -> None:
        """Both ends learn it, each in its own time; what is on its way may be lost."""
        rng = self.net.loop.stream("breaks")
        for plug in (self, self.peer):
            plug._broken = True
            if rng.random() < 0.5:
                plug._outbox.clear()
            self.net.loop.after(rng.random() * 0.05, plug.learn)

    def learn(self) -> None:
        """This end hears that the connection is gone."""
        if not self.over and self.actor.alive:
            self.net.loop.call_soon(self._end, context=self.actor.context)
