"""What one of several replicas gets of a load."""

from dataclasses import dataclass, replace

from vllm_sarathi.simulator.load.traffic import Synthetic, Traffic
from vllm_sarathi.simulator.load.workload import Workload


@dataclass(frozen=True, slots=True)
class RoundRobinShare:
    """One in so many requests of a load: what a round-robin router sends to one replica.

    Replicas behind such a router do not influence each other, so one stands for all.

    Args:
        whole: the load of all replicas.
        num_replicas: how many there are.
    """

    whole: Traffic
    num_replicas: int

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.whole.name

    def at(self, rate: float, seed: int) -> Workload:
        """The share when all replicas together get this rate, in requests per second."""
        return self.whole.at(rate, seed).every(self.num_replicas)


def scaled(traffic: Traffic, num_replicas: int) -> Traffic:
    """The load with as many requests for each of several replicas; a recorded one as it is."""
    if isinstance(traffic, Synthetic):
        return replace(traffic, num_requests=traffic.num_requests * num_replicas)
    return traffic
