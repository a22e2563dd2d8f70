"""DRBD 8.4 and a pollux pair at the same work in the same two guests: guest_drbd.py POLLUX WRITES

    alpha: fio ─► /dev/drbd0                          ─ LAN ─► beta: DRBD
    alpha: fio ─► /dev/nbd0 ─ Unix socket ─► pollux   ─ LAN ─► beta: pollux

What is counted, per write of 4 KiB: packets and bytes on the LAN, and instructions of each guest.
Guests run with one nanosecond of their clock for each instruction, so the time a guest was not
idle is the number of instructions it ran. Speed is not looked at: it would be the emulator's.
Then beta leaves, blocks are written, beta comes back: bytes on the LAN for each byte that was missing.
The last line but one is JSON.
"""

import contextlib
import json
import socket
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, mount_tools, say, step, tools  # noqa: E402

MEBIBYTES = 64
DRBD = ["/usr/lib/drbd/drbdsetup-84", "/usr/sbin/drbdmeta"]

# One instruction, one nanosecond; while a guest is idle its clock follows the real one.
ACCEL = "tcg,thread=single"
ICOUNT = ["-icount", "shift=0,sleep=on,align=off"]

ADDRESS = {"alpha": "192.0.2.10", "beta": "192.0.2.11"}

CONFIG = """
[cluster]
name = "guest"
quorum = "off"
[node.alpha]
data_dir = "/data"
address = "192.0.2.10:8790"
nbd_socket = "/tmp/nbd.sock"
insecure = ["replication"]
[node.beta]
data_dir = "/data"
address = "192.0.2.11:8790"
nbd_socket = "/tmp/nbd.sock"
insecure = ["replication"]
[volume.v]
size = "{size}MiB"
backing = "{backing}"
replicas = ["alpha", "beta"]
polling = "cpu"
nbd = [{{ name = "v" }}]
"""

SERVE = """
ulimit -n 4096
LD_LIBRARY_PATH=/tools /tools/pollux serve --config /tmp/c.toml --node {node} </dev/null >>/tmp/log 2>&1 &
echo $! >/tmp/pid
for i in $(seq 300); do [ -S /data/pollux.sock ] && [ -S /tmp/nbd.sock ] && exit 0; sleep 0.1; done
cat /tmp/log; exit 1
"""

STOP = "p=$(cat /tmp/pid); kill $p; while [ -d /proc/$p ]; do sleep 0.05; done"

FIO = """
fio --name=w --filename={device} --size=32M --rw=randwrite --randseed={seed} --refill_buffers --bs=4k --number_ios={writes} \
    --direct=1 --ioengine=libaio --iodepth={depth} --end_fsync=0 --output=/tmp/fio.out \
    || {{ cat /tmp/fio.out; exit 1; }}
"""

# Nanoseconds since the start, of them idle (also for a disk, as a ring's sleep is counted); packets and bytes of the LAN, sent and received.
COUNTERS = r"""
awk '/^now at/ {now = $3} /\.(idle|iowait)_sleeptime/ {idle += $(NF - 1)} END {printf "%.0f %.0f\n", now, idle}' /proc/timer_list
cat /sys/class/net/eth1/statistics/{tx_packets,rx_packets,tx_bytes,rx_bytes}
"""


def lan(kind, port, mac):
    """The card that leads to the other guest: frames of at most 1500 bytes, as a wire has them."""
    plain = ",".join(f"{name}=off" for name in ("host_tso4", "host_tso6", "guest_tso4", "guest_tso6",
                                                "guest_ecn", "host_ecn", "gso", "mrg_rxbuf"))
    return ["-netdev", f"socket,id=lan,{kind}=127.0.0.1:{port}",
            "-device", f"virtio-net-pci,netdev=lan,romfile=,mac=52:54:00:00:02:{mac},addr=0x10,{plain}"]


def disk(directory, name):
    path = directory / f"{name}.img"
    with open(path, "wb") as made:
        made.truncate(MEBIBYTES << 20)
    return ["-drive", f"if=none,id={name},format=raw,cache=unsafe,file={path}",
            "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def two_guests(directory, binary):
    port = free_port()
    with contextlib.ExitStack() as stack:
        guests = {}
        for node, kind, mac in ("alpha", "listen", 10), ("beta", "connect", 11):
            own = directory / node
            own.mkdir()
            devices = [*ICOUNT, *lan(kind, port, mac), *tools(own, [binary, *DRBD])]
            for name in "drbd", "pollux", "meta":
                devices += disk(own, name)
            guest = stack.enter_context(guest_up(mem=512, devices=devices, accel=ACCEL))
            mount_tools(guest)
            guest.sh(f"ip addr add {ADDRESS[node]}/24 dev eth1 && ip link set eth1 up && mkdir /dev/by-name && "
                     "for d in /sys/block/vd*; do ln -s /dev/${d##*/} /dev/by-name/$(cat $d/serial); done; "
                     "mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/by-name/meta && mkdir /data && mount /dev/by-name/meta /data; "
                     "modprobe nbd nbds_max=1; modprobe drbd usermode_helper=/usr/bin/true")
            guests[node] = guest
        guests["alpha"].sh(f"wait-for 20 ping -c 1 -W 1 {ADDRESS['beta']}", timeout=30)
        yield guests["alpha"], guests["beta"]


class Counters:
    """What both guests have done since `begin`."""

    def __init__(self, alpha, beta):
        self.guests = (alpha, beta)
        self.begin()

    def read(self):
        return [[int(word) for word in guest.sh(COUNTERS).text.split()] for guest in self.guests]

    def begin(self):
        self.then = self.read()

    def end(self):
        """Instructions at alpha and beta, packets and bytes on the LAN both ways."""
        alpha, beta = [[b - a for a, b in zip(*pair)] for pair in zip(self.then, self.read())]
        return {"alpha_instructions": alpha[0] - alpha[1], "beta_instructions": beta[0] - beta[1],
                "packets": alpha[2] + alpha[3], "bytes": alpha[4] + alpha[5]}


def fio(guest, device, writes, depth, seed):
    guest.sh(FIO.format(device=device, writes=writes, depth=depth, seed=seed), timeout=600)


def per_write(counters, guest, device, writes, depth):
    """Counts of one write; what the guests do when nothing is written is taken off."""
    fio(guest, device, 200, depth, 1)                      # the extents are hot from here on
    counters.begin()
    fio(guest, device, 1, depth, 1)
    start = counters.end()
    counters.begin()
    fio(guest, device, writes + 1, depth, 1)
    return {key: round((value - start[key]) / writes, 1) for key, value in counters.end().items()}


def drbdsetup(guest, words, **options):
    return guest.sh(f"LD_LIBRARY_PATH=/tools /tools/drbdsetup-84 {words}", **options).text


class Drbd:
    device = "/dev/drbd0"
    name = "drbd"

    def __init__(self, alpha, beta):
        self.alpha, self.beta = alpha, beta
        self.ends = [f"ipv4:{ADDRESS[node]}:7789" for node in ("alpha", "beta")]
        for guest in alpha, beta:
            disk = guest.sh("readlink -f /dev/by-name/drbd").text.strip()
            guest.sh(f"LD_LIBRARY_PATH=/tools /tools/drbdmeta --force 0 v08 {disk} internal create-md",
                     timeout=120)
            drbdsetup(guest, "new-resource r0")
            drbdsetup(guest, "new-minor r0 0 0")
            drbdsetup(guest, f"attach 0 {disk} {disk} internal")
        self.connect(alpha, self.ends)
        self.connect(beta, self.ends[::-1])
        alpha.sh("wait-for 30 grep -q cs:Connected /proc/drbd", timeout=40)
        drbdsetup(alpha, "primary 0 --force")
        self.until_equal()

    def connect(self, guest, ends):
        drbdsetup(guest, f"connect r0 {ends[0]} {ends[1]} --protocol=C")

    def until_equal(self):
        self.alpha.sh("wait-for 300 grep -q ds:UpToDate/UpToDate /proc/drbd", timeout=310)

    def leave(self):
        drbdsetup(self.beta, f"disconnect {self.ends[1]} {self.ends[0]}")
        self.alpha.sh("wait-for 60 grep -q ds:UpToDate/DUnknown /proc/drbd", timeout=70)

    def come_back(self):
        self.connect(self.beta, self.ends[::-1])

    def end(self):
        for guest in self.alpha, self.beta:
            drbdsetup(guest, "down r0")


class Pollux:
    device = "/dev/nbd0"
    name = "pollux"

    def __init__(self, alpha, beta):
        self.alpha, self.beta = alpha, beta
        for guest, node in (alpha, "alpha"), (beta, "beta"):
            backing = guest.sh("readlink -f /dev/by-name/pollux").text.strip()
            guest.sh("cat >/tmp/c.toml", input=CONFIG.format(size=MEBIBYTES, backing=backing))
            guest.sh(SERVE.format(node=node), timeout=60)
            self.ask(guest, node, "volume create v")
        self.ask(alpha, "alpha", "promote v")
        self.until_equal()
        alpha.sh("wait-for 20 nbd-client -N v -b 4096 -unix /tmp/nbd.sock /dev/nbd0", timeout=30)

    def ask(self, guest, node, verb):
        words = f"LD_LIBRARY_PATH=/tools /tools/pollux {verb} --config /tmp/c.toml --node {node}"
        return guest.sh(words, timeout=120).text

    def replicas(self):
        (volume,) = json.loads(self.ask(self.alpha, "alpha", "status --json"))["volumes"]
        return {replica["node"]: replica["disk_state"] for replica in volume["replicas"]}

    def until(self, state):
        for _ in range(600):
            if self.replicas()["beta"] == state:
                return
            self.alpha.sh("sleep 0.5")
        raise AssertionError(f"beta never became {state}: {self.replicas()}")

    def until_equal(self):
        self.until("up_to_date")

    def leave(self):
        self.beta.sh(STOP, timeout=60)
        self.alpha.sh("sleep 1")

    def come_back(self):
        self.beta.sh(SERVE.format(node="beta"), timeout=60)

    def end(self):
        self.alpha.sh("nbd-client -d /dev/nbd0", timeout=60)
        for guest in self.alpha, self.beta:
            guest.sh(STOP, timeout=60)


def resync(counters, system, writes):
    """What brings beta up to date after `writes` blocks that it missed: bytes on the LAN for each."""
    system.leave()
    fio(system.alpha, system.device, writes, 16, 7)
    counters.begin()
    system.come_back()
    system.until_equal()
    moved = counters.end()
    return {"blocks": writes, "bytes_for_each_missing": round(moved["bytes"] / (writes * 4096), 3),
            "packets": moved["packets"]}


def main():
    binary, writes = sys.argv[1], int(sys.argv[2])
    found = {}
    with tempfile.TemporaryDirectory(prefix="pollux-drbd-") as directory, \
            two_guests(Path(directory), binary) as (alpha, beta):
        counters = Counters(alpha, beta)
        for depth in 1, 16:
            found[f"disk, depth {depth}"] = per_write(counters, alpha, "/dev/by-name/drbd", writes, depth)
        for make in Drbd, Pollux:
            system = make(alpha, beta)
            for depth in 1, 16:
                key = f"{system.name}, depth {depth}"
                found[key] = per_write(counters, alpha, system.device, writes, depth)
                say(f"# {key}: {found[key]}")
            found[f"{system.name}, resync"] = resync(counters, system, writes)
            system.leave()
            for depth in 1, 16:
                key = f"{system.name} alone, depth {depth}"
                found[key] = per_write(counters, alpha, system.device, writes, depth)
            system.come_back()
            system.until_equal()
            system.end()
    say(json.dumps(found))
    say("done")


main()
