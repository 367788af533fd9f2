"""Copies what the replicas of a starting revision say into their deployment's log.

The cursor of each replica is kept with the deployment's row, so a controller that was killed goes on
where it stopped; what it copied just before the kill may then stand twice, and nothing is missing.
"""

from collections.abc import Iterable

from deployments.drivers.base import Driver
from deployments.errors import NotFound, SlipwayError
from deployments.logstore import LogEntry
from deployments.pipeline.log import DeploymentLog
from deployments.services.models import Deployment

_AT_ONCE = 1000


def copy_new_lines(
    deployment: Deployment, replicas: Iterable[str], driver: Driver, log: DeploymentLog
) -> list[str]:
    """Append what is new of these replicas and of those copied from before. Returns the last texts."""
    cursors = dict(deployment.log_cursors)
    texts: list[str] = []
    for replica in sorted({*replicas, *cursors}):
        before = cursors.get(replica, "")
        try:
            page = driver.logs(replica, cursor=before, limit=_AT_ONCE)
        except NotFound:
            continue  # it has said nothing yet, or its log is gone
        except SlipwayError:
            continue  # the next cycle asks again from the same cursor
        entries = [LogEntry(line.at, replica, line.text) for line in page.lines]
        if page.lost:
            note = f"({page.lost} earlier lines rotated away)"
            entries.insert(0, LogEntry(page.lines[0].at if page.lines else 0.0, replica, note))
        if entries:
            log.extend(entries)
            texts += [entry.text for entry in entries]
        cursors[replica] = page.cursor
    if cursors != deployment.log_cursors:
        deployment.log_cursors = cursors
        Deployment.objects.filter(pk=deployment.pk).update(log_cursors=cursors)
    return texts
