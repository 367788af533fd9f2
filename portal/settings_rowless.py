"""Settings of the processes that have no rows: the agent and the router's loop.

They start in a third of the time and memory without the admin, the queue and the models, so they are back
sooner when they were killed, and a machine with two cores starts sooner as a whole.
"""

from portal.settings import *  # noqa: F403

INSTALLED_APPS = ["deployments.apps.RowlessDeploymentsConfig", "router.apps.RouterConfig"]
