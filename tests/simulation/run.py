"""A run in the world that its options name."""

from tests.simulation import cluster
from tests.simulation.record import Record
from tests.simulation.report import Report
from tests.simulation.schedule import Options
from tests.simulation.store import world as store
from tests.support.faulty_files import CrashError


def simulate(options: Options) -> Report:
    """One whole run. What is raised that no check raises is a failure, too, even if there is no world yet."""
    try:
        return _simulate(options)
    except (Exception, CrashError) as e:
        failure = Record(options.seed).raised("world", "the simulation", e)
        return Report(options, failure, (), (), (), 0, 0, {}, 0.0)


def _simulate(options: Options) -> Report:
    """Of one partition's core, of stores, or of a whole cluster."""
    if options.world == "core":
        return cluster.simulate(options)
    if options.world == "store":
        return store.simulate(options)
    from tests.simulation.whole import cluster as whole  # takes a second to import, which few runs need
    from tests.simulation.whole import scenarios

    return whole.simulate(scenarios.played(options) if options.scenario else whole.WholeCluster(options))
