"""When a failed call is made again, and when it is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer import Pause, Reject, Retry
from consumer.delivery.retry import MINIMUM_SECONDS, Attempts, Decision
from consumer.errors import CallTimeoutError
from consumer.settings.sections import RetrySettings

PLAIN = RetrySettings(attempts=5, initial_seconds=0.2, maximum_seconds=30.0, multiplier=2.0, jitter=0.0)

policies = st.builds(
    RetrySettings,
    attempts=st.integers(1, 2000),
    initial_seconds=st.floats(1e-9, 1.0),
    maximum_seconds=st.floats(1.0, 1e6),
    multiplier=st.floats(1.0, 1e9),
    jitter=st.floats(0.0, 1.0),
)
chances = st.floats(0.0, 1.0, exclude_max=True)


def waits(policy: RetrySettings, raised: list[BaseException], chance: float = 0.5) -> list[float | None]:
    attempts = Attempts(policy, lambda: chance)
    return [attempts.after(error).wait for error in raised]


def test_the_schedule() -> None:
    """The first wait is ``initial_seconds``, each next one ``multiplier`` times longer; the last call has none."""
    assert waits(PLAIN, [ValueError()] * 5) == [0.2, 0.4, 0.8, 1.6, None]


def test_no_wait_is_longer_than_the_maximum() -> None:
    """Waits grow up to ``maximum_seconds`` and stay there."""
    policy = RetrySettings(attempts=10, initial_seconds=1.0, maximum_seconds=5.0, multiplier=3.0, jitter=0.0)
    assert waits(policy, [ValueError()] * 5) == [1.0, 3.0, 5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError(), "error"), (TimeoutError(), "error"), (OSError(), "error"), (CallTimeoutError(), "timeout")],
)
def test_a_single_attempt(error: Exception, kind: str) -> None:
    """With ``attempts = 1`` the first failure is the last; a timeout has its own kind."""
    step = Attempts(RetrySettings(attempts=1)).after(error)
    assert (step.kind, step.wait, step.reason) == (kind, None, "exhausted")


@pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_jitter(chance: float, factor: float) -> None:
    """Jitter makes a wait shorter or longer by up to ``jitter`` of it."""
    policy = RetrySettings(initial_seconds=1.0, jitter=0.2)
    (wait,) = waits(policy, [ValueError()], chance)
    assert wait == pytest.approx(factor)


@given(policy=policies, chance=chances, calls=st.integers(1, 3000))
def test_every_wait_is_within_its_bounds(policy: RetrySettings, chance: float, calls: int) -> None:
    """With any settings and any number of failures, a wait lies between the minimum and the maximum plus jitter."""
    found = waits(policy, [ValueError()] * calls, chance)
    given_up = [wait for wait in found if wait is None]
    assert len(given_up) == max(0, calls - policy.attempts + 1)
    for wait in found[: policy.attempts - 1]:
        assert wait is not None
        assert MINIMUM_SECONDS <= wait <= max(MINIMUM_SECONDS, policy.maximum_seconds * (1 + policy.jitter) * 1.000001)


@given(policy=policies)
def test_waits_never_get_shorter(policy: RetrySettings) -> None:
    """Without jitter each wait is at least as long as the one before."""
    found = [wait for wait in waits(policy, [ValueError()] * min(policy.attempts, 200)) if wait is not None]
    assert found == sorted(found)


def test_a_wait_that_overflows_is_the_maximum() -> None:
    """A wait that overflows a float is the maximum, and raises nothing."""
    policy = RetrySettings(attempts=5000, multiplier=1e300, maximum_seconds=7.0, jitter=0.0)
    assert waits(policy, [ValueError()] * 4000)[-1] == 7.0


def test_reject_is_at_once() -> None:
    """A rejected record is not called again, whatever attempts are left."""
    assert Attempts(PLAIN).after(Reject("no")) == Decision("reject", None)
    assert Attempts(PLAIN).after(Reject("no")).reason == "rejected"


@pytest.mark.parametrize(("made", "kind"), [(Retry, "retry"), (Pause, "pause")])
def test_instructions_have_no_limit(made: Callable[..., Exception], kind: str) -> None:
    """Retry and Pause count no attempt: a failure after them has all its attempts."""
    attempts = Attempts(PLAIN, lambda: 0.5)
    assert {attempts.after(made(after=3)) for _ in range(1000)} == {Decision(kind, 3.0)}  # type: ignore[arg-type]
    assert attempts.calls == 1
    assert [attempts.after(ValueError()).wait for _ in range(5)] == [0.2, 0.4, 0.8, 1.6, None]


@pytest.mark.parametrize("made", [Retry, Pause, ConnectionRefusedError, ConnectionError])
def test_without_a_time_the_waits_grow(made: Callable[[], Exception]) -> None:
    """Retry, Pause and ConnectionError without a time wait as the schedule says, up to its maximum."""
    found = waits(PLAIN, [made()] * 20)
    assert found[:4] == [0.2, 0.4, 0.8, 1.6]
    assert found[8:] == [30.0] * 12


def test_a_connection_error_is_a_pause() -> None:
    """ConnectionError and its subclasses pause; TimeoutError, which is an OSError too, does not."""
    for error in (ConnectionError(), ConnectionResetError(), BrokenPipeError()):
        assert Attempts(PLAIN).after(error).kind == "pause"
    assert Attempts(PLAIN).after(TimeoutError()).kind == "error"


GROUPS_OF_OUTAGES = [
    ExceptionGroup("", [ConnectionError()]),
    ExceptionGroup("", [ConnectionResetError(), BrokenPipeError()]),
    ExceptionGroup("", [Pause(after=60), ConnectionError()]),
    ExceptionGroup("", [ExceptionGroup("", [ConnectionError()]), ExceptionGroup("", [Pause()])]),
    BaseExceptionGroup("", [ConnectionError()]),
]
OTHER_GROUPS = [
    ExceptionGroup("", [ConnectionError(), ValueError()]),
    ExceptionGroup("", [ConnectionError(), ExceptionGroup("", [ConnectionError(), TimeoutError()])]),
    ExceptionGroup("", [ConnectionError(), Retry()]),
    ExceptionGroup("", [ConnectionError(), Reject()]),
    ExceptionGroup("", [Reject()]),
    BaseExceptionGroup("", [ConnectionError(), KeyboardInterrupt()]),
]


@pytest.mark.parametrize("group", GROUPS_OF_OUTAGES, ids=repr)
def test_a_group_of_connection_errors_is_a_pause(group: BaseException) -> None:
    """A group that holds only connection errors and Pause, at any depth, pauses as the schedule says."""
    attempts = Attempts(PLAIN)
    assert [attempts.after(group) for _ in range(3)] == [Decision("pause", wait) for wait in (0.2, 0.4, 0.8)]
    assert attempts.calls == 1


@pytest.mark.parametrize("group", OTHER_GROUPS, ids=repr)
def test_a_group_with_anything_else_is_an_error(group: BaseException) -> None:
    """One other exception in a group is a reason to count the call."""
    assert Attempts(PLAIN).after(group) == Decision("error", 0.2)
    assert Attempts(RetrySettings(attempts=1)).after(group).reason == "exhausted"


def test_a_deep_group() -> None:
    """The depth of a group has no limit."""
    group: Exception = ConnectionError()
    for _ in range(5000):
        group = ExceptionGroup("", [group])
    assert Attempts(PLAIN).after(group).kind == "pause"


class LibraryError(Exception):
    """A lost connection, as a library that has its own exceptions raises it."""


def test_what_a_route_pauses_on() -> None:
    """Exceptions in ``pause_on``, their subclasses, and groups of such pause as the schedule says."""

    class RefusedError(LibraryError):
        pass

    mixed = ExceptionGroup("", [LibraryError(), ExceptionGroup("", [ConnectionError(), Pause()])])
    for error in (LibraryError(), RefusedError(), mixed):
        attempts = Attempts(PLAIN, pause_on=(LibraryError, LookupError))
        assert [attempts.after(error) for _ in range(3)] == [Decision("pause", wait) for wait in (0.2, 0.4, 0.8)]
        assert attempts.calls == 1
        assert Attempts(PLAIN).after(error).kind == "error"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Reject(), "reject"),
        (Retry(), "retry"),
        (CallTimeoutError(), "timeout"),
        (ValueError(), "pause"),
        (ExceptionGroup("", [ValueError()]), "pause"),
    ],
)
def test_a_broad_pause_on_leaves_instructions_alone(error: Exception, kind: str) -> None:
    """With ``pause_on`` of all exceptions Reject and Retry are still followed, and a time limit is an attempt."""
    assert Attempts(PLAIN, pause_on=(Exception,)).after(error).kind == kind


@pytest.mark.parametrize("made", [Retry, Pause])
def test_at_once_is_a_moment_later(made: Callable[..., Exception]) -> None:
    """``after=0`` waits for the minimum, so that it does not keep the event loop busy."""
    assert waits(PLAIN, [made(after=0)]) == [MINIMUM_SECONDS]


@pytest.mark.parametrize("made", [Retry, Pause])
@pytest.mark.parametrize("after", [-1, -0.001, math.nan, math.inf, -math.inf])
def test_a_wrong_time(made: Callable[..., Exception], after: float) -> None:
    """A time that is not a number of seconds from 0 raises ValueError where it is given."""
    with pytest.raises(ValueError, match="must be a finite number of seconds, 0 or more"):
        made(after=after)


@pytest.mark.parametrize("made", [Retry, Pause])
def test_a_time_of_another_type(made: Callable[..., Exception]) -> None:
    """A time of another type raises TypeError where it is given."""
    with pytest.raises(TypeError):
        made(after="5")


@given(st.lists(st.sampled_from([ValueError(), Retry(after=1), Pause(), ConnectionError(), CallTimeoutError()])))
def test_only_failures_count(raised: list[BaseException]) -> None:
    """In any mix of instructions and failures, the last attempt is the ``attempts``-th failure."""
    attempts = Attempts(PLAIN)
    failures = 0
    for error in raised:
        step = attempts.after(error)
        failures += step.kind in ("error", "timeout")
        assert (step.wait is None) == (step.kind in ("error", "timeout") and failures >= PLAIN.attempts)
        assert attempts.calls == min(failures + 1, PLAIN.attempts)
