"""How long a load has to go on for its run to say what the engine holds.

A run begins with an empty engine, and a short one ends before the engine is full: it would
meet an objective at any rate.
"""

from dataclasses import replace
from math import ceil

from vllm_sarathi.simulator.load.traffic import Synthetic, Traffic
from vllm_sarathi.simulator.results.report import Report

# Most of a run that may come while the engine fills up (``Report.warm_up_share``). Where it was
# measured, capacity was too high by about that share: by 20% at 29%, by 6% at 8%.
STEADY = 0.05
# A recorded load cannot be made longer; beyond this share its capacity says nothing.
HOPELESS = 0.5
# A longer run is at most so many times as long: it may fail soon where the short one did not.
MOST_GROWTH, LEAST_GROWTH = 4.0, 1.25


def longer_load(traffic: Traffic, rate: float, report: Report) -> Synthetic | None:
    """The load with more requests, where a run of it was too short to be steady; else None.

    Raises:
        ValueError: the load is a recorded one, and far too short.
    """
    share = report.warm_up_share
    if share is None or share <= STEADY:
        return None
    if isinstance(traffic, Synthetic):
        growth = min(max(share / STEADY, LEAST_GROWTH), MOST_GROWTH)
        return replace(traffic, num_requests=ceil(traffic.num_requests * growth))
    if share <= HOPELESS:
        return None
    num = len(report.workload)
    raise ValueError(
        f"{traffic.name} holds {num} requests, too few for a capacity: at {rate:.4g} requests/s "
        f"{share:.0%} of them arrive before as many are in the engine as under a load that goes "
        f"on; at most {HOPELESS:.0%} may, and {STEADY:.0%} should: {ceil(num * share / STEADY)} "
        "requests or more"
    )
