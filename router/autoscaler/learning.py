"""How long things take: a request inside a replica, and a replica until it is ready.

PURE.
"""

from dataclasses import replace

from router.autoscaler.state import State
from router.autoscaler.window import Load, Standing

# A replica that takes three times as long as they usually do (and half a minute) is not waited for.
OVERDUE_TIMES, OVERDUE_LEAST_SECONDS = 3.0, 30.0
_FEWEST_COMPLETED = 10  # answers in the window before its service time is believed
_LEARN = 0.3  # weight of the newest start in the learnt start time


def overdue(standing: Standing, state: State, now: float) -> int:
    if state.start_seconds is None:
        return 0
    patience = max(OVERDUE_TIMES * state.start_seconds, OVERDUE_LEAST_SECONDS)
    return sum(1 for since in standing.starting_since if now - since > patience)


def learnt(load: Load, state: State) -> State:
    """Take up what the window and the replicas show about how long things take."""
    completed = sum(s.completed for s in load.window.seconds)
    if completed >= _FEWEST_COMPLETED:
        busy = sum(s.busy for s in load.window.seconds)
        state = replace(state, service_seconds=busy / completed)
    start, until = state.start_seconds, state.starts_until
    for ready_at, took in load.standing.starts:
        if ready_at > state.starts_until:
            start = took if start is None else start + _LEARN * (took - start)
            until = max(until, ready_at)
    if until != state.starts_until:
        state = replace(state, start_seconds=start, starts_until=until)
    return state
