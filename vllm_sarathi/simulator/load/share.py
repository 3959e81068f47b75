"""What one of several replicas gets of a load."""

from dataclasses import dataclass

from vllm_sarathi.simulator.load.traffic import Traffic
from vllm_sarathi.simulator.load.workload import Workload


@dataclass(frozen=True, slots=True)
class RoundRobinShare:
    """One in so many requests of a load: what a round-robin router sends to one replica.

    Replicas behind such a router do not influence each other: where requests are drawn, one
    stands for all.

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
