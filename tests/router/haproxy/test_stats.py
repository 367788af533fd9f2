"""HAProxy 2.8's own answers, read; anything else is refused, never taken for nothing."""

import pytest

from router.haproxy import names, stats
from router.haproxy.stats import Counters, Unreadable

INFO = """\
Name: HAProxy
Version: 2.8.25-5cf5d0683
Pid: 24277
Uptime: 0d 0h00m00s
node: vm
description: slipway-993f9687de4bed3b
Stopping: 0
Nbthread: 2
Idle_pct: 87
"""

STAT = (
    "# pxname,svname,qcur,qmax,scur,smax,slim,stot,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,req_tot,act,\n"
    "body_hop,BACKEND,0,0,0,1,800,3,0,0,0,3,3,1,\n"
    "be_0001,BACKEND,5,9,7,12,1,3000,0,2990,3,4,3002,2,\n"
    "\n"
)

STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
srv_check_port srv_check_addr srv_agent_addr srv_agent_port
6 be_0001 1 s1 127.0.0.1 2 0 1 1 1 6 3 1 6 0 0 0 - 21101 - 0 0 - - 0
6 be_0001 2 s2 127.0.0.1 0 5 1 1 1 1 0 0 14 0 0 0 - 1 - 0 0 - - 0
6 be_0001 3 s3 127.0.0.1 3 12 1 1 1 1 0 0 14 0 0 0 - 21103 - 0 0 - - 0

"""

CONN = """\
# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb \
idle_lim idle_cur idle_per_thr[1]
be_0001/s1 6/1 127.0.0.1 21101 - 5000 1 1 1 0 0 -1 0 0
be_0001/s2 6/2 127.0.0.1 1 - 5000 0 0 0 0 0 -1 0 0
be_0001/s3 6/3 127.0.0.1 21103 - 5000 4 6 0 0 0 -1 0 0

"""

PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
6430            master          1 [failed: 0]   0d00h00m01s     2.8.25-5cf5d0683
# workers
6438            worker          0               0d00h00m00s     2.8.25-5cf5d0683
# old workers
6433            worker          1               0d00h00m01s     2.8.25-5cf5d0683
# programs

"""


def table(**values: int) -> str:
    cells = " ".join(f"gpc{index}={values.get(f'g{index}', 0)}" for index in range(names.COUNTERS))
    return (
        "# table: counters, type: string, size:1024, used:1\n"
        f"0x37ffc9e0: key=be_0001 use=0 exp=0 shard=0 {cells}\n\n"
    )


def test_the_worker_tells_what_it_was_started_with() -> None:
    worker = stats.parse_worker(INFO)
    assert (worker.pid, worker.shape, worker.stopping) == (24277, "993f9687de4bed3b", False)
    assert (worker.version, worker.threads, worker.idle) == ((2, 8), 2, 87.0)


def test_the_frontend_tells_its_clients_and_their_requests() -> None:
    said = "# pxname,svname,scur,req_tot,\nscoring,FRONTEND,34,1200,\n\n"
    assert stats.parse_frontend(said) == (34, 1200)
    for broken in ("", "# pxname,svname,scur,req_tot,\n\n", said.replace("1200", "-")):
        with pytest.raises(Unreadable):
            stats.parse_frontend(broken)


def test_each_door_tells_how_many_are_connected() -> None:
    said = "# pxname,svname,scur,\nscoring,FRONTEND,34,\nfrom_peers,FRONTEND,0,\n\n"
    assert stats.parse_doors(said) == {"scoring": 34, "from_peers": 0}
    with pytest.raises(Unreadable):
        stats.parse_doors(said.replace("34", "-"))


@pytest.mark.parametrize("line", ["Version: 2.8", "Nbthread: 2", "Idle_pct: 87"])
def test_a_worker_that_does_not_tell_how_it_fares_is_unreadable(line: str) -> None:
    with pytest.raises(Unreadable):
        stats.parse_worker(INFO.replace(line, "Something: else"))


def test_backends_have_busy_without_those_that_wait() -> None:
    found = stats.parse_backends(STAT)["be_0001"]
    assert (found.busy, found.queued, found.arrivals, found.ok) == (2, 5, 3000, 2993)
    assert found.up == 2


@pytest.mark.parametrize("broken", [STAT.replace("stot", "other"), STAT.replace("3000", "-")])
def test_backends_without_a_figure_are_refused(broken: str) -> None:
    with pytest.raises(Unreadable):
        stats.parse_backends(broken)


def test_servers_are_put_together_from_both_answers() -> None:
    found = stats.parse_servers(STATE, CONN)
    s1, s2, s3 = (found["be_0001", name] for name in ("s1", "s2", "s3"))
    assert (s1.address, s1.up, s1.maintenance, s1.draining, s1.used) == (
        "127.0.0.1:21101",
        True,
        False,
        False,
        1,
    )
    assert (s2.maintenance, s2.up, s2.used) == (True, False, 0)
    assert (s3.draining, s3.maintenance, s3.used) == (True, False, 4)


def test_a_server_that_was_disabled_in_the_text_and_made_ready_is_ready() -> None:
    """0x04 stays: taken for maintenance, a serving slot would be called free."""
    joined = STATE.replace(" s1 127.0.0.1 2 0 1", " s1 127.0.0.1 2 4 1")
    assert joined != STATE
    s1 = stats.parse_servers(joined, CONN)["be_0001", "s1"]
    assert (s1.maintenance, s1.draining, s1.up) == (False, False, True)


def test_a_server_without_its_connections_is_not_idle_but_unreadable() -> None:
    with pytest.raises(Unreadable, match="be_0001/s3"):
        stats.parse_servers(STATE, "\n".join(CONN.splitlines()[:-2]))


@pytest.mark.parametrize("text", ["", "\n", "No such backend.\n", "Permission denied\n"])
def test_an_answer_that_is_none_is_refused(text: str) -> None:
    for parse in (
        stats.parse_worker,
        stats.parse_backends,
        stats.parse_used,
        stats.parse_counters,
        stats.parse_processes,
        lambda said: stats.parse_servers(said, CONN),
    ):
        with pytest.raises(Unreadable):
            parse(text)


def test_counters_are_read_by_backend_and_an_unlisted_one_has_counted_nothing() -> None:
    found = stats.parse_counters(table(g0=3, g3=4, g4=2))
    figures = stats.parse_backends(STAT)["be_0001"]
    counted = stats.counters(figures, found["be_0001"], None)
    assert (counted.rejected, counted.client_errors, counted.unready) == (3, 4, 2)
    assert counted.arrivals == 3000
    assert stats.counters(figures, None, None).rejected == 0


def latencies(table: str, **counts: int) -> str:
    lines = [f"# table: {table}, type: string, size:24576, used:{len(counts)}"]
    for key, count in counts.items():
        bucket, backend = key[1:].split("_", 1)
        lines.append(f"0x20bdeaf8: key={bucket}.{backend} use=0 exp=0 shard=0 http_req_cnt={count}")
    return "\n".join([*lines, "", ""])


def test_an_answer_that_did_not_wait_took_as_long_at_its_replica_as_in_all() -> None:
    found = stats.parse_times(
        [
            latencies("direct", b2_be_0001=7, b3_be_0001=1, b0_be_0002=4),
            latencies("total", b5_be_0001=2),
            latencies("queue", b4_be_0001=2),
            latencies("service", b2_be_0001=2),
        ]
    )
    total, queue, service = found["be_0001"]
    assert (total[2], total[3], total[5], sum(total)) == (7, 1, 2, 10)
    assert (queue[0], queue[4], sum(queue)) == (8, 2, 10)
    assert (service[2], service[3], sum(service)) == (9, 1, 10)
    assert [sum(times) for times in found["be_0002"]] == [4, 4, 4]


@pytest.mark.parametrize("broken", ["key=x.be_0001", "key=99.be_0001", "=many"])
def test_a_line_of_times_that_makes_no_sense_is_refused(broken: str) -> None:
    good = latencies("direct", b2_be_0001=7)
    bad = good.replace("key=2.be_0001", broken) if "key" in broken else good.replace("=7", broken)
    rest = [latencies(name) for name in ("total", "queue", "service")]
    with pytest.raises(Unreadable, match="direct"):
        stats.parse_times([bad, *rest])


def test_a_line_that_is_the_same_again_is_not_read_again() -> None:
    known: stats.Lines = {}
    first = stats.parse_counters(table(g0=3), known)["be_0001"]
    assert stats.parse_counters(table(g0=3), known)["be_0001"] is first
    assert stats.parse_counters(table(g0=4), known)["be_0001"][0] == 4
    assert stats.parse_counters(table(g0=3), known)["be_0001"] == first


def test_a_line_of_counters_that_is_cut_is_refused() -> None:
    cut = table().replace(f" gpc{names.COUNTERS - 1}=0", "")
    with pytest.raises(Unreadable, match="cut"):
        stats.parse_counters(cut)


def test_a_second_is_the_difference_of_its_ends() -> None:
    before = Counters(arrivals=10, ok=8)
    after = Counters(arrivals=15, ok=12, rejected=2, unready=1)
    assert stats.delta(before, after) == Counters(arrivals=5, ok=4, rejected=2, unready=1)
    assert stats.delta(after, after) == Counters()


def test_counters_that_shrank_are_another_workers_and_unknown() -> None:
    assert stats.delta(Counters(arrivals=10), Counters(arrivals=9)) is None
    assert stats.delta(Counters(unready=1), Counters()) is None
    low = Counters(histogram=(1,) + (0,) * 23)
    assert stats.delta(low, Counters()) is None


def test_maps_are_read_and_an_empty_one_is_empty() -> None:
    text = "0x37db3580 one be_0001\n0x37db3581 two/v1 be_0002\n\n"
    assert stats.parse_map(text) == {"one": "be_0001", "two/v1": "be_0002"}
    assert stats.parse_map("\n") == {}
    with pytest.raises(Unreadable):
        stats.parse_map("Unknown map identifier. Please use #<id> or <file>.\n")


def test_old_workers_are_told_from_the_present_one() -> None:
    found = stats.parse_processes(PROC)
    assert (found.master, found.worker, found.old) == (6430, 6438, (6433,))


def test_an_address_of_ipv6_is_as_replicas_say_theirs() -> None:
    told = (
        "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb "
        "safe_nb idle_lim idle_cur idle_per_thr[1]\nbe_0001/s1 5/1 fd00::7 5001 - 5000 2 2 0 0 0 -1 0 0\n"
    )
    assert stats.parse_used(told) == {("be_0001", "s1"): ("[fd00::7]:5001", 2)}
