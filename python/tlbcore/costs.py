"""What the flushes of a run would cost on a machine: a model's opinion, from counters and a few costs.

The counters of a run are exact; the time is not. It is a sum of counts times costs, without contention, queueing,
caches or overlap, and most machines' costs are folklore (`Machine.assumed`, `Value.confidence`). Use it to rank schemes
and to see where time goes, not to predict a benchmark. Nothing is fitted to a measurement.

How it adds up, with A = what one request's invalidation takes on one CPU, on average over all requests:

- local invalidation: A for each flush that a requesting CPU does in its own TLB;
- sender's wait: for each request that tells others, one way of an IPI, the interrupt and A (the CPUs told work side by
  side, and the acknowledgement is a cache line), and the sending of each IPI;
- receivers: the interrupt for each CPU told, and A for each that was not lazy or gone;
- refills: one page walk for each TLB fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlbcore.errors import InputError
from tlbcore.machines.machine import COSTS, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COUNTERS", "LABEL", "CostEstimate", "estimate"]

LABEL: Final = "a model's opinion"
"""What to print beside every estimate."""

COUNTERS: Final = (
    "nr_flush_requests",
    "nr_flush_full",
    "nr_flush_pages",
    "nr_flush_remote",
    "nr_local_flushes",
    "nr_ipis",
    "nr_told_lazy",
    "nr_told_gone",
    "nr_tlb_fills",
)
"""The counters that an estimate needs."""


@dataclass(frozen=True)
class CostEstimate:
    """Estimated nanoseconds of CPU time, summed over all CPUs, by what they go to."""

    local_invalidation_ns: float
    sender_wait_ns: float
    receiver_interrupt_ns: float
    receiver_invalidation_ns: float
    refill_ns: float

    @property
    def total_ns(self) -> float:
        """All of it."""
        return self.initiator_ns + self.interference_ns + self.refill_ns

    @property
    def initiator_ns(self) -> float:
        """What the CPUs that flush spend."""
        return self.local_invalidation_ns + self.sender_wait_ns

    @property
    def interference_ns(self) -> float:
        """What is taken from CPUs that did not ask for a flush."""
        return self.receiver_interrupt_ns + self.receiver_invalidation_ns


def estimate(counters: Mapping[str, int], costs: Machine | Mapping[str, float]) -> CostEstimate:
    """Estimate the time that the flushes of a run take.

    Args:
        counters: The counters of a run; those of `COUNTERS` are looked at.
        costs: A machine, or its `costs_ns`.

    Raises:
        InputError: A counter or a cost is missing.

    >>> from tlbcore import machines
    >>> one_remote_page = dict.fromkeys(COUNTERS, 0) | {
    ...     "nr_flush_requests": 1, "nr_flush_pages": 1, "nr_flush_remote": 1, "nr_local_flushes": 1, "nr_ipis": 1}
    >>> round(estimate(one_remote_page, machines.get("skylake_sp")).initiator_ns)
    933
    """
    costs_ns = costs.costs_ns if isinstance(costs, Machine) else costs
    for what, names, found in (("counter", COUNTERS, counters), ("cost", COSTS, costs_ns)):
        missing = [name for name in names if name not in found]
        if missing:
            raise InputError(f"cost model: found no {what} {', '.join(missing)}, expected {', '.join(names)}")
    requests = counters["nr_flush_requests"]
    pages_ns = counters["nr_flush_pages"] * costs_ns["invlpg_ns"]
    full_ns = counters["nr_flush_full"] * costs_ns["full_flush_ns"]
    invalidation_ns = (pages_ns + full_ns) / requests if requests else 0.0
    answer_ns = costs_ns["ipi_oneway_ns"] + costs_ns["interrupt_ns"] + invalidation_ns
    # A remote request may tell nobody (all lazy), so that neither count alone is that of the waits.
    waits = min(counters["nr_flush_remote"], counters["nr_ipis"])
    working = max(counters["nr_ipis"] - counters["nr_told_lazy"] - counters["nr_told_gone"], 0)
    return CostEstimate(
        local_invalidation_ns=counters["nr_local_flushes"] * invalidation_ns,
        sender_wait_ns=counters["nr_ipis"] * costs_ns["ipi_send_ns"] + waits * answer_ns,
        receiver_interrupt_ns=counters["nr_ipis"] * costs_ns["interrupt_ns"],
        receiver_invalidation_ns=working * invalidation_ns,
        refill_ns=counters["nr_tlb_fills"] * costs_ns["walk_ns"],
    )
