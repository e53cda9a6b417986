"""Whole clusters to which this and that happens: one function each, from the first record on.

`s` is the script (`script.Script`). `a` leads at first; `b` and `c` follow, and would claim in this order. What is expected
comes about within ten seconds, or as long as `within` says; that nothing acknowledged is lost, and that all is whole in the
end, is asked each time, by the world itself.
"""

from tests.simulation.schedule import Options
from tests.simulation.whole.machines import Machine
from tests.simulation.whole.script import Events, Scenario, Script, Scripted

SCENARIOS: dict[str, Scenario] = {}


def scenario(events: Events) -> Events:
    """One of them, by its name."""
    SCENARIOS[events.__name__] = Scenario(events)
    return events


def played(options: Options) -> Scripted:
    """The cluster to which the scenario of these options happens."""
    return Scripted(options, SCENARIOS[options.scenario].events)


# --- processes and machines ------------------------------------------------------------------------------------------


@scenario
async def leader_loses_power(s: Script) -> None:
    """What it had not synced is lost with it, and was never acknowledged; the next in line leads, it follows."""
    a, b, c = await s.begin()
    s.slow(a, 0.5)
    await s.wait(1.0)
    s.power_off(a)
    await s.leads(b, epoch=2)
    await s.in_sync(b, c)
    await s.acknowledges(10)
    s.start(a)
    await s.all_in_sync(a, b, c, epoch=2)


@scenario
async def leader_is_paused(s: Script) -> None:
    """For longer than its lease: the next one leads meanwhile, and it knows it as soon as it goes on."""
    a, b, c = await s.begin()
    s.pause(a)
    await s.leads(b, epoch=2)
    await s.in_sync(b, c)
    await s.wait(6.0)
    s.resume(a)
    await s.all_in_sync(a, b, c, epoch=2)


@scenario
async def all_lose_power(s: Script) -> None:
    """The last in line is up first: it claims when it might, takes out whoever is not there, and leads on when they come."""
    a, b, c = await s.begin()
    s.power_off(a, b, c)
    await s.wait(1.0)
    s.start(c)
    await s.leads(c, epoch=2)
    await s.in_sync(c)
    await s.nothing_for(3.0)
    s.start(b)
    await s.in_sync(b, c)
    await s.acknowledges(10)
    s.start(a)
    await s.all_in_sync(a, b, c, epoch=2)


# --- the network -----------------------------------------------------------------------------------------------------


async def leads_on_alone(s: Script, a: Machine, b: Machine, c: Machine) -> None:
    """The leader serves reads and no writes, and is joined again when all ways are free."""
    await s.in_sync(a)
    s.expect("reads go on", s.done(await s.read()))
    await s.nothing_for(5.0)
    s.heal()
    await s.all_in_sync(a, b, c)
    await s.acknowledges(10)
    s.expect("nothing has moved", s.epoch() == 1)


@scenario
async def leader_is_not_heard(s: Script) -> None:
    """By its followers, which it hears: it takes out who does not acknowledge, and alone it serves reads. Nobody else may lead."""
    a, b, c = await s.begin()
    s.cut(a, [b, c])
    await leads_on_alone(s, a, b, c)


@scenario
async def leader_does_not_hear(s: Script) -> None:
    """Its followers, which hear it, and so don't claim: as if they had not acknowledged, which it can't tell."""
    a, b, c = await s.begin()
    s.cut_back([b, c], a)
    await leads_on_alone(s, a, b, c)


@scenario
async def leader_is_cut_off_from_everybody(s: Script) -> None:
    """Coordination, too, so that it can take nobody out: its followers' promises run out, and the next one leads."""
    a, b, c = await s.begin()
    s.cut_coordination(a)
    s.cut(a, [b, c])
    s.cut_back([b, c], a)
    await s.leads(b, epoch=2)
    await s.in_sync(b, c)
    await s.acknowledges(10)
    s.heal()
    s.reach_coordination(a)
    await s.all_in_sync(a, b, c, epoch=2)


@scenario
async def router_is_cut_off_from_the_leader(s: Script) -> None:
    """Nobody else is: who leads does not change, and whoever asks the other router, or the nodes, is served."""
    a, b, c = await s.begin()
    s.cut("router0", [a])
    s.cut_back([a], "router0")
    await s.acknowledges(30)
    s.heal()
    await s.all_in_sync(a, b, c, epoch=1)


# --- coordination ----------------------------------------------------------------------------------------------------


@scenario
async def coordination_is_away_for_long(s: Script) -> None:
    """Reads and writes go on. Nobody can lead in place of a leader that dies, itself included, until coordination is back."""
    a, b, c = await s.begin()
    s.coordination_away()
    await s.wait(10.0)
    await s.acknowledges(10)
    s.kill(a)
    await s.nothing_for(5.0)
    s.start(a)
    await s.nothing_for(5.0)
    s.coordination_back()
    await s.leads(a, b, c, epoch=2)
    await s.all_in_sync(a, b, c)


@scenario
async def leader_is_cut_off_from_coordination(s: Script) -> None:
    """It leads on; but it can't take out a follower that dies, so writes wait for that one, or for coordination."""
    a, b, c = await s.begin()
    s.cut_coordination(a)
    await s.wait(5.0)
    await s.acknowledges(10)
    s.kill(c)
    await s.wait(1.0)
    await s.nothing_for(5.0)
    s.reach_coordination(a)
    await s.in_sync(a, b)
    await s.acknowledges(10)
    s.start(c)
    await s.all_in_sync(a, b, c, epoch=1)


@scenario
async def all_sessions_end(s: Script) -> None:
    """Who is registered is registered anew; who leads is not a session's."""
    a, b, c = await s.begin()
    s.lose_sessions(a, b, c)
    await s.acknowledges(30)
    s.expect("nothing has moved", s.epoch() == 1)
    await s.all_in_sync(a, b, c)


@scenario
async def coordination_is_lost_while_a_follower_is_down(s: Script) -> None:
    """It is counted on, so nothing is put back before it has said what it knows; then all is as before."""
    a, b, c = await s.begin()
    s.kill(c)
    s.lose_coordination()
    await s.wait(1.0)
    await s.nothing_for(10.0)
    s.start(c)
    await s.acknowledges(10)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


# --- disks -----------------------------------------------------------------------------------------------------------


async def refuses_writes_for_want_of_room(s: Script, a: Machine, b: Machine, c: Machine) -> None:
    """The leader, until there is room; it says why, its reads go on, and it leads on."""
    refused = await s.write()
    s.expect("the client is told why", "the leader's disk is nearly full; reads go on" in refused.reason)
    s.expect("reads go on", s.done(await s.read()))
    await s.nothing_for(3.0)
    s.make_room(a)
    await s.acknowledges(10)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


@scenario
async def leader_has_a_full_disk(s: Script) -> None:
    """It says so to whoever writes; reads go on, and writes when there is room."""
    a, b, c = await s.begin()
    s.fill(a)
    await s.wait(1.5)
    await refuses_writes_for_want_of_room(s, a, b, c)


@scenario
async def leader_has_no_room_but_its_ballast(s: Script) -> None:
    """Its disk was full before it could see that: the write that met it is done all the same; no others, and nothing fails."""
    s.keep_no_room(ballast=True)
    a, b, c = await s.begin()
    s.fill(a, left=10)
    await s.has_used_its_ballast(a)
    await refuses_writes_for_want_of_room(s, a, b, c)


@scenario
async def no_disk_has_room_but_its_ballast(s: Script) -> None:
    """As when all share one: nobody leaves or fails, reads go on, and writes when there is room."""
    s.keep_no_room(ballast=True)
    a, b, c = await s.begin()
    for machine in (a, b, c):
        s.fill(machine, left=10)
    await s.has_used_its_ballast(a)
    await s.wait(1.5)
    await s.nothing_for(5.0)
    s.expect("reads go on", s.done(await s.read()))
    for machine in (a, b, c):
        s.make_room(machine)
    await s.acknowledges(10)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


@scenario
async def leader_has_no_room_and_all_others_die(s: Script) -> None:
    """A write of it fails; nobody else is left to lead. What it holds is known: with room it opens its disk again, and leads."""
    s.keep_no_room()
    a, b, c = await s.begin()
    s.fill(a, left=10)
    await s.fails(a)
    s.kill(b, c)
    await s.nothing_for(5.0)
    s.make_room(a)
    await s.leads(a, epoch=2)
    await s.in_sync(a)
    s.start(b, c)
    await s.all_in_sync(a, b, c)
    await s.incarnation(a, 1)


@scenario
async def leader_has_a_disk_that_fails(s: Script) -> None:
    """A sync is an I/O error: it leaves, another leads, and it comes back as another replica, from empty."""
    a, b, c = await s.begin()
    s.fail_sync(a)
    await s.leads(b, epoch=2)
    await s.incarnation(a, 2)
    await s.all_in_sync(a, b, c)


@scenario
async def follower_has_a_bit_that_turns(s: Script) -> None:
    """Somebody reads it, in the end verification: it leaves and is rebuilt, and the leader leads on."""
    a, b, c = await s.begin()
    s.turn_bit(b)
    await s.incarnation(b, 2, within=15.0)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


@scenario
async def follower_comes_back_with_an_empty_disk(s: Script) -> None:
    """It is another replica: the one that it was is taken out, and it joins with everything."""
    a, b, c = await s.begin()
    s.kill(b)
    s.empty(b)
    s.start(b)
    await s.incarnation(b, 2)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


@scenario
async def follower_comes_back_with_an_old_copy(s: Script) -> None:
    """Before it is taken out. The leader knows what it acknowledged: it is a stranger, and is rebuilt."""
    a, b, c = await s.begin()
    await s.turn_back(b, writes=20)
    s.start(b)
    await s.incarnation(b, 2)
    await s.all_in_sync(a, b, c, epoch=1)
    await s.leads(a, epoch=1)


@scenario
async def leader_comes_back_with_an_old_copy(s: Script) -> None:
    """Of the epoch that it leads. It claims at once, meets one that has more, lets that one lead, and is rebuilt."""
    a, b, c = await s.begin()
    await s.turn_back(a, writes=20)
    s.start(a)
    await s.leads(b, c, epoch=3)
    await s.incarnation(a, 2)
    await s.all_in_sync(a, b, c)


@scenario
async def leader_comes_back_twice_with_an_old_copy(s: Script) -> None:
    """It claims, meets nobody, and dies. With its log in an epoch that no other log has it is behind all the same."""
    a, b, c = await s.begin()
    await s.turn_back(a, writes=20)
    s.cut_back([b, c], a)
    s.start(a)
    await s.has_written(a, epoch=2)
    s.kill(a)
    s.heal()
    s.start(a)
    await s.leads(b, c, epoch=4)
    await s.incarnation(a, 2)
    await s.all_in_sync(a, b, c)


@scenario
async def leader_has_a_slow_disk(s: Script) -> None:
    """So slow, for so long, that it hands over to the next one; all stay in sync, it is the last in line."""
    a, b, c = await s.begin()
    s.slow(a, 0.5)
    await s.leads(b, epoch=2, within=30.0)
    s.expect("the slow one is the last in line", s.partition.state.in_sync[-1].pod == a.pod)
    await s.all_in_sync(a, b, c)
    await s.wait(10.0)
    s.expect("nothing moves back", s.epoch() == 2)


@scenario
async def leader_has_a_disk_that_hangs(s: Script) -> None:
    """It hands over after two seconds, is taken out two seconds later, and comes back when its disk goes on."""
    a, b, c = await s.begin()
    s.slow(a, 20.0)
    await s.leads(b, epoch=2, within=20.0)
    await s.in_sync(b, c)
    await s.acknowledges(10)
    s.slow(a, 0.0)
    await s.all_in_sync(a, b, c, within=30.0, epoch=2)


# --- the operator ----------------------------------------------------------------------------------------------------


@scenario
async def leader_dies_while_a_replica_is_added(s: Script) -> None:
    """Whoever leads takes it in."""
    a, b, c = await s.begin()
    *_, d = await s.want_replicas(4)
    s.kill(a)
    await s.leads(b, epoch=2)
    await s.in_sync(b, c, d)
    s.start(a)
    await s.all_in_sync(a, b, c, d)


@scenario
async def leader_dies_while_a_replica_is_taken_away(s: Script) -> None:
    """Whoever leads takes it out, were it the one that died."""
    a, *_ = await s.begin()
    stay = await s.want_replicas(2)
    s.kill(a)
    await s.acknowledges(10)
    s.start(a)
    await s.all_in_sync(*stay, within=30.0)
    await s.acknowledges(10)
