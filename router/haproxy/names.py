"""The words that HAProxy's configuration, the commands to it and its answers share.

PURE. Maps and tables are named here, with what is in them; `router.haproxy.render` and `rules` write them
into the configuration, `pool` says what the maps hold, `stats` reads the tables.
"""

from router.haproxy import request_line

# Counters of the stick table `counters`, one entry a backend.
REJECTED, TIMEOUTS, FAILURES, CLIENT_ERRORS, UNREADY = 0, 1, 2, 3, 4
COUNTERS = 5

# Stick tables of times, by "<bucket>.<backend>", that count 2xx answers. Most answers did not wait and are
# counted once; one that waited is counted in three.
DIRECT = "direct"  # the one time of an answer that did not wait: in all and at the replica
TOTAL, QUEUE, SERVICE = "total", "queue", "service"  # of an answer that waited
LATENCY_TABLES = (DIRECT, TOTAL, QUEUE, SERVICE)

BUCKETS_MAP = "buckets.map"  # microseconds, as an address range -> bucket of the histograms

# What a request meets, fastest first.
TICKETS_MAP = (
    "tickets.map"  # path of a plain service's score:upper-case SHA-256 of a key -> backend
)
SCORES_MAP = "scores.map"  # path of a plain service's score, where tokens are accepted -> backend
ROUTES_MAP = "routes.map"  # service -> backend of its default version, or `SPLIT`
SPLITS_MAP = "splits.map"  # service~0 to service~99 -> backend
VERSIONS_MAP = "versions.map"  # service/version -> backend
NAMES_MAP = "names.map"  # backend -> service/version
KEYS_MAP = "keys.map"  # upper-case SHA-256 of a key:service -> primary or secondary
OPEN_MAP = "open.map"  # service -> open where it asks for nothing, token where it takes tokens
# What was verified: upper-case SHA-256 of a token:service -> <exp>:<jti>:token:<subject>. HAProxy adds to
# it when it has verified a token, and looks only here until that expires; the loop takes out what was
# revoked, after the id stands in REVOKED_MAP, so that no request can bring it back.
TOKENS_MAP = "tokens.map"
REVOKED_MAP = "revoked.map"  # id (jti) of a token that was revoked -> revoked
CORS_MAP = "cors.map"  # service -> * or listed, and then service:origin -> yes
TIMEOUTS_MAP = "timeouts.map"  # backend -> scoring timeout, milliseconds
RETRY_MAP = "retry.map"  # backend -> seconds a client should wait after 503
# backend -> epoch seconds since when a replica may still be at work on what HAProxy has given up: its
# gate may refuse then, and refused requests go on to another replica. HAProxy itself adds to it.
GATES_MAP = "gates.map"
# backend -> slot in the backend of peers, where another pod of this router has that version
OWNERS_MAP = "owners.map"

SPLIT = "split"

# The maps that `pool.maps` says everything of.
MAPS = (
    TICKETS_MAP,
    SCORES_MAP,
    ROUTES_MAP,
    SPLITS_MAP,
    VERSIONS_MAP,
    NAMES_MAP,
    KEYS_MAP,
    OPEN_MAP,
    CORS_MAP,
    request_line.LOGGED_MAP,
    TIMEOUTS_MAP,
    RETRY_MAP,
)
