"""What this machine lets the agent limit, from the kernel's own words."""

from pathlib import Path

import pytest

from deployments.agent.cgroups import Ability, discover
from deployments.types import Resources

FIRST = (
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
    "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
)
FREE = "4:memory:/\n1:cpu,cpuacct:/user.slice\n0::/\n"
LIMITED = Resources(cpu=0.5, memory_gb=1.0, cpu_limit=1.5, memory_gb_limit=2.0)


def fine(base: Path) -> str:
    return ""


def test_version_one_limits_both_where_the_groups_are_free():
    ability = discover(FIRST, FREE, fine)
    assert ability.version == 1
    assert ability.cpu == "/sys/fs/cgroup/cpu,cpuacct/slipway"
    assert ability.memory == "/sys/fs/cgroup/memory/slipway"
    cpu, memory = ability.groups("local-a", LIMITED)
    assert cpu["files"] == {
        "cpu.shares": "512",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }
    assert memory["files"] == {"memory.limit_in_bytes": str(2 * 2**30)}
    assert memory["path"] == "/sys/fs/cgroup/memory/slipway/local-a"
    assert ability.note(LIMITED) == ""


def test_a_group_of_another_supervisor_is_never_left():
    own = "4:memory:/docker/abc\n1:cpu,cpuacct:/\n"
    tried: list[Path] = []

    def try_group(base: Path) -> str:
        tried.append(base)
        return ""

    ability = discover(FIRST, own, try_group)
    assert (ability.cpu != "", ability.memory) == (True, "")
    assert tried == [Path("/sys/fs/cgroup/cpu,cpuacct/slipway")]
    assert "memory: this process is in a group of another supervisor" in ability.said
    assert ability.note(LIMITED).startswith("memory limit not enforced: ")
    assert ability.note(Resources()) == ""


def test_without_the_right_to_make_groups_nothing_is_promised():
    ability = discover(FIRST, FREE, lambda base: f"{base} cannot be made: Permission denied")
    assert (ability.cpu, ability.memory) == ("", "")
    assert ability.groups("local-a", LIMITED) == []
    assert ability.note(LIMITED).startswith("cpu limit and memory limit not enforced: ")


def test_version_two_uses_one_group_with_both(tmp_path):
    (tmp_path / "slipway").mkdir()
    ability = discover(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n", "0::/user.slice/a.scope\n", fine)
    assert ability.version == 2
    (group,) = ability.groups("local-a", LIMITED)
    assert group["files"] == {
        "cpu.weight": "50",
        "cpu.max": "150000 100000",
        "memory.oom.group": "1",
        "memory.max": str(2 * 2**30),
    }
    assert group["oom"] == "memory.events"
    assert (tmp_path / "cgroup.subtree_control").exists()


def test_a_version_two_container_keeps_its_group(tmp_path):
    ability = discover(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n", "0::/kubepods/x\n", fine)
    assert (ability.cpu, ability.memory) == ("", "")
    assert "in a group of another supervisor" in ability.said


def test_a_machine_without_cgroups_says_so():
    assert discover("proc /proc proc rw 0 0\n", "", fine) == Ability(
        0, "", "", "no cgroups on this machine"
    )


@pytest.mark.parametrize(("cpu", "weight"), [(0.001, "1"), (0.1, "10"), (500.0, "10000")])
def test_weights_stay_in_the_kernels_range(cpu, weight):
    ability = Ability(2, "/c", "/c", "")
    assert ability.groups("a", Resources(cpu=cpu))[0]["files"]["cpu.weight"] == weight
