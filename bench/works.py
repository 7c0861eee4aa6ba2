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
    """A better loop by hand than the one of the floors; its ratios are shown beside."""
    peers: tuple[Contestant, ...] = ()
    """Contestants of the long comparison only."""

    @property
    def name(self) -> str:
        return self.ours.name

    def contestants(self, *, peers: bool) -> list[Contestant]:
        return [self.hand, self.ours, *([self.slot] if self.slot else []), *(self.peers if peers else ())]


def _decoding(spelling: Spelling, title: str, loop: str) -> list[Work]:
    hand = Contestant(f"{spelling}_hand", loop, "hand_loops", spelling, share=0.8, spelling=spelling)
    return [
        Work(
            Contestant(
                f"{spelling}_{mode}",
                f"this project: {title}, {way}",
                "ours",
                mode,
                share=0.8,
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


def _waiting(name: str, title: str, cpu_ratio: float, share: float) -> Work:
    return Work(
        Contestant(name, f"this project: by key, {title}", "ours", name, share=share),
        Contestant(
            f"{name}_hand", f"by hand: {title}, a task an event, `TaskGroup` per poll", "hand_loops", name, share=share
        ),
        Floor(1.3, cpu_ratio),
        slot=Contestant(
            f"{name}_slot", f"by hand: {title}, a task for a free slot", "hand_loops", f"{name}:slot", share=share
        ),
        peers=(
            Contestant(
                f"{name}_aio_consumer",
                f"confluent-kafka `AIOConsumer`: {title}",
                "aio_consumer_loop",
                name,
                "confluent",
                share=share,
            ),
            Contestant(
                f"{name}_faststream",
                f"FastStream, `max_workers`: {title}",
                "faststream_loop",
                name,
                "faststream",
                share=0.05,
                note="no order of keys; commits before the handling",
            ),
            Contestant(
                f"{name}_faststream_concurrent",
                f"faststream-concurrent-aiokafka: {title}",
                "faststream_concurrent_loop",
                name,
                "faststream-concurrent",
                share=0.05,
                note="no order of keys; no limit of uncommitted calls",
            ),
        ),
    )


WORKS = [
    *_decoding("camel", "camelCase", 'by hand: camelCase, a Struct with `rename="camel"`'),
    *_decoding("unknown", "one unknown field", "by hand: one unknown field, a Struct that ignores it"),
    Work(
        Contestant("routes3", "this project: three routes", "ours", "routes3", share=0.6, writes=True),
        Contestant(
            "routes3_hand",
            "by hand: three routes, if/elif, encode, buffered write",
            "hand_loops",
            "routes3",
            share=0.6,
            writes=True,
            note="syncs no file",
        ),
        Floor(cpu_ratio=0.8),
    ),
    _waiting("wait0", "`sleep(0)`", 0.4, share=0.2),
    _waiting("wait1", "waiting 1 ms", 0.75, share=0.15),
    _waiting("wait10", "waiting 10 ms", 0.6, share=0.1),
    Work(
        Contestant(
            "wait0_partition", "this project: in partition order, `sleep(0)`", "ours", "wait0_partition", share=0.6
        ),
        Contestant(
            "wait0_partition_hand",
            "by hand: in partition order, `sleep(0)`, a task a partition",
            "hand_loops",
            "wait0_partition",
            share=0.6,
        ),
        Floor(cpu_ratio=0.6),
    ),
]
