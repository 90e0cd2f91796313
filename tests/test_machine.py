"""How many threads: files as Linux writes them, on machines and in containers."""

import json

import pytest
from striate import SettingError, machine
from striate.machine import Cache, caches, cpu_quota, default_threads, numbers
from striate.tools import inspect_model

V2_MOUNT = "29 25 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = (
    "33 32 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def tree(folder, files):
    """Write files as they are in /proc and /sys; return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def cores(*groups):
    """Return the topology of cores with these CPUs each."""
    return {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text
        for text in groups
        for cpu in numbers(text)
    }


def version2(group="/", root="/", **limits):
    """Return control groups of version 2; `limits` by path, with __ for /."""
    files = {
        "proc/self/cgroup": f"0::{group}\n",
        "proc/self/mountinfo": V2_MOUNT.format(root=root),
    }
    for path, text in limits.items():
        files[f"sys/fs/cgroup/{path.replace('__', '/')}/cpu.max".replace("//", "/")] = (
            text
        )
    return files


def version1(quota, period, group="/", root="/", at=""):
    return {
        "proc/self/cgroup": f"9:name=systemd:{group}\n4:cpu,cpuacct:{group}\n",
        "proc/self/mountinfo": V1_MOUNT.format(root=root),
        f"sys/fs/cgroup/cpu,cpuacct/{at}cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/cpu,cpuacct/{at}cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", {0}), ("0-2,8\n", {0, 1, 2, 8}), ("0,64", {0, 64}), ("", set())],
)
def test_lists_of_cpus(text, wanted):
    assert numbers(text) == wanted


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (version2(__="max 100000\n"), None),
        (version2(__="150000 100000\n"), 1.5),
        (version2("/a/b", a="200000 100000", a__b="max 100000"), 2.0),
        (version2("/a/b", a="400000 100000", a__b="50000 100000"), 0.5),
        (version2("/../other", __="300000 100000"), 3.0),
        (version2("/box/a", "/box", a="100000 100000"), 1.0),
        (version2(__="nonsense\n"), None),
        (version1(-1, 100000), None),
        (version1(250000, 100000), 2.5),
        (version1(50000, 100000, "/docker/x", "/docker/x"), 0.5),
        (version1(70000, 10000, "/a/b", "/", "a/"), 7.0),
    ],
)
def test_quotas(tmp_path, files, quota):
    assert cpu_quota(tree(tmp_path, files)) == quota


FOUR_CORES = cores("0,4", "1,5", "2,6", "3,7")


@pytest.mark.parametrize(
    ("files", "cpus", "wish", "count", "reason"),
    [
        ({}, range(3), "", 3, "3 CPUs allowed, no quota"),
        (FOUR_CORES, range(8), "", 4, "on 4 cores (the others are siblings)"),
        (FOUR_CORES, {1, 5}, "", 1, "2 CPUs allowed, on 1 core (the others"),
        (FOUR_CORES, {0, 1, 2}, "", 3, "3 CPUs allowed, no quota"),
        (FOUR_CORES, range(8), "6", 6, "STRIATE_NUM_THREADS=6"),
        (FOUR_CORES, range(8), "100", 8, "8 CPUs allowed"),
        (version2(__="150000 100000"), range(8), "", 2, "quota of 1.5 CPUs"),
        (version2(__="10000 100000"), range(8), "", 1, "quota of 0.1 CPUs"),
        (version2(__="200000 100000"), range(8), "3", 2, "quota of 2 CPUs"),
        (version1(300000, 100000), range(8), "1", 1, "STRIATE_NUM_THREADS=1"),
    ],
)
def test_the_default_number_of_threads(tmp_path, files, cpus, wish, count, reason):
    threads = default_threads(tree(tmp_path, files), cpus, wish)
    assert threads.count == count
    assert reason in threads.reason


@pytest.mark.parametrize("wish", ["0", "-1", "1.5", "many", "1e3", " "])
def test_wishes_that_make_no_sense(tmp_path, wish):
    with pytest.raises(SettingError, match="STRIATE_NUM_THREADS="):
        default_threads(tmp_path, {0}, wish)


def test_caches(tmp_path):
    files = {}
    for index, (level, kind, size, shared) in enumerate(
        [
            ("1", "Data", "48K", "0,4"),
            ("1", "Instruction", "32K", "0,4"),
            ("2", "Unified", "2048K", "0,4"),
            ("3", "Unified", "24M", "0-7"),
        ]
    ):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        files |= {
            f"{folder}/level": level + "\n",
            f"{folder}/type": kind + "\n",
            f"{folder}/size": size + "\n",
            f"{folder}/shared_cpu_list": shared + "\n",
        }
    assert caches(tree(tmp_path, files)) == [
        Cache(1, 48 << 10, 2),
        Cache(2, 2 << 20, 2),
        Cache(3, 24 << 20, 8),
    ]


def test_the_machine_on_the_command_line(capsys, monkeypatch):
    monkeypatch.setenv("STRIATE_NUM_THREADS", "1")
    assert inspect_model.main(["--machine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["threads"] == 1
    assert document["threads_reason"] == machine.default_threads().reason
    assert document["instruction_sets"][-1] == "base"
    assert {"striate", "python", "numpy"} <= document["versions"].keys()
    assert inspect_model.main(["--machine"]) == 0
    shown = capsys.readouterr().out
    assert "STRIATE_NUM_THREADS=1" in shown
    assert document["versions"]["striate"] in shown
