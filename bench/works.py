"""The works of "In use": kinds of use other than one route, snake_case records and handlers that do not wait."""

from __future__ import annotations

from typing import NamedTuple

from bench.contestants import Contestant
from bench.data import Spelling


class Floor(NamedTuple):
    """Least ratio of events a second, and largest ratio of CPU an event, to the loop written by hand."""

    events_ratio: float | None = None
    cpu_ratio: float | None = None

    def met_by(self, events_ratio: float, cpu_ratio: float) -> bool:
        fast = self.events_ratio is None or events_ratio >= self.events_ratio
        return fast and (self.cpu_ratio is None or cpu_ratio <= self.cpu_ratio)

    def __str__(self) -> str:
        limits = [f"events/s ≥ {self.events_ratio}"] if self.events_ratio else []
        return ", ".join([*limits, *([f"CPU ≤ {self.cpu_ratio}"] if self.cpu_ratio else [])])


class Work(NamedTuple):
    """One kind of use: this project beside the loop written by hand for the same work."""

    ours: Contestant
    hand: Contestant
    floor: Floor
    slot: Contestant | None = None
    """A better loop by hand, whose ratios are shown and have no floor."""
    peers: tuple[Contestant, ...] = ()
    """Contestants of the long comparison only."""

    @property
    def name(self) -> str:
        return self.ours.name

    def contestants(self, *, peers: bool) -> list[Contestant]:
        return [self.hand, self.ours, *([self.slot] if self.slot else []), *(self.peers if peers else ())]


def _decoding(spelling: Spelling, title: str, loop: str) -> list[Work]:
    hand = Contestant(f"{spelling}_hand", loop, "hand_loops", spelling, share=0.5, spelling=spelling)
    return [
        Work(
            Contestant(
                f"{spelling}_{mode}",
                f"this project: {title}, {way}",
                "ours",
                mode,
                share=0.5,
                spelling=spelling,
            ),
            hand,
            Floor(events_ratio=events_ratio),
        )
        for mode, way, events_ratio in (
            ("inline", "inline", 1.3),
            ("async", "async handler", 1.2),
            ("key", "ordering by key, async handler", 1.2),
        )
    ]


def _waiting(name: str, title: str, cpu_ratio: float) -> Work:
    return Work(
        Contestant(name, f"this project: {title}", "ours", name, share=0.1),
        Contestant(f"{name}_hand", "by hand: a task an event, `TaskGroup` per poll", "hand_loops", name, share=0.1),
        Floor(1.3, cpu_ratio),
        slot=Contestant(
            f"{name}_slot", "by hand: the same, a task only for a free slot", "hand_loops", f"{name}:slot", share=0.1
        ),
        peers=(
            Contestant(
                f"{name}_aio_consumer",
                "confluent-kafka `AIOConsumer`",
                "aio_consumer_loop",
                name,
                "confluent",
                share=0.1,
            ),
            Contestant(
                f"{name}_faststream",
                "FastStream, `max_workers`",
                "faststream_loop",
                name,
                "faststream",
                share=0.05,
                note="no order of keys; commits before the handling",
            ),
            Contestant(
                f"{name}_faststream_concurrent",
                "faststream-concurrent-aiokafka",
                "faststream_concurrent_loop",
                name,
                "faststream-concurrent",
                share=0.05,
                note="no order of keys",
            ),
        ),
    )


WORKS = [
    *_decoding("camel", "camelCase", 'by hand: `getmany`, a Struct with `rename="camel"`'),
    *_decoding("unknown", "one unknown field", "by hand: `getmany`, a Struct that ignores unknown fields"),
    Work(
        Contestant("routes3", "this project: three routes", "ours", "routes3", share=0.4, writes=True),
        Contestant(
            "routes3_hand",
            "by hand: if/elif, encode, buffered write",
            "hand_loops",
            "routes3",
            share=0.4,
            writes=True,
            note="syncs no file",
        ),
        Floor(cpu_ratio=0.8),
    ),
    _waiting("wait0", "by key, `sleep(0)`", 0.4),
    _waiting("wait1", "by key, waiting 1 ms", 0.75),
    _waiting("wait10", "by key, waiting 10 ms", 0.6),
    Work(
        Contestant(
            "wait0_partition", "this project: in partition order, `sleep(0)`", "ours", "wait0_partition", share=0.4
        ),
        Contestant("wait0_partition_hand", "by hand: a task a partition", "hand_loops", "wait0_partition", share=0.4),
        Floor(cpu_ratio=0.6),
    ),
]
