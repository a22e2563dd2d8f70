"""A volume on QEMU's NVMe device, served in the guest itself: guest_nvme.py POLLUX

    /dev/ng0n1 by commands, /dev/nvme0n1 by the block layer; by interrupts and polled
    nbd-client over a Unix socket ─► what is written is read ─► trim and zeroes read as zeroes
      ─► fio with verify ── kill -9 ── ─► what was synced is there, also by the block device
    without queues for polling: "poll" is refused, "poll_if_possible" says why it does not
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, mount_tools, say, step, tools  # noqa: E402

MEBIBYTES = 64

CONFIG = """
[cluster]
name = "guest"
[node.alpha]
data_dir = "/tmp/data"
nbd_socket = "/tmp/nbd.sock"
[volume.v]
size = "{size}MiB"
backing = "{backing}"
replicas = ["alpha"]
completion = "{completion}"
nbd = [{{ name = "v" }}]
"""

SERVE = """
cd /tmp
ulimit -n 4096
LD_LIBRARY_PATH=/tools /tools/pollux serve --config /tmp/c.toml --node alpha </dev/null >>/tmp/log 2>&1 &
echo $! >/tmp/pid
for i in $(seq 300); do [ -S /tmp/data/pollux.sock ] && [ -S /tmp/nbd.sock ] && exit 0; sleep 0.1; done
cat /tmp/log; exit 1
"""

POLLUX = "LD_LIBRARY_PATH=/tools /tools/pollux {verb} --config /tmp/c.toml --node alpha"

ATTACH = """
for i in $(seq 50); do
    nbd-client -N v -unix /tmp/nbd.sock /dev/nbd0 && exit 0
    sleep 0.2
done
exit 1
"""

WRITE = """
set -e
head -c 8M /dev/urandom >/tmp/want
dd if=/tmp/want of=/dev/nbd0 bs=1M oflag=direct conv=fsync 2>/dev/null
dd if=/tmp/want of=/dev/nbd0 bs=4k count=64 oflag=direct,dsync 2>/dev/null
dd if=/dev/nbd0 bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/want
"""

ZEROES = """
set -e
blkdiscard -o 1M -l 1M /dev/nbd0
blkdiscard -z -o 3M -l 64k /dev/nbd0
dd if=/dev/zero of=/tmp/want bs=1M seek=1 count=1 conv=notrunc 2>/dev/null
dd if=/dev/zero of=/tmp/want bs=64k seek=48 count=1 conv=notrunc 2>/dev/null
dd if=/dev/nbd0 bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/want
blkdiscard -o 8M -l 56M /dev/nbd0
dd if=/dev/nbd0 bs=1M skip=8 count=56 iflag=direct 2>/dev/null | cmp - <(head -c 56M /dev/zero)
"""

FIO = """
fio --name=v --filename=/dev/nbd0 --offset=8M --size=16M --io_size=6M --rw=randrw --bs=4k --ioengine=psync \
    --direct=1 --fsync=16 --verify=crc32c --verify_state_save=0 --output=/tmp/fio.out \
    || { cat /tmp/fio.out; exit 1; }
"""

# Writes that nobody waits for, in mid-flight when the server dies.
NOISE = "timeout 20 dd if=/dev/urandom of=/dev/nbd0 bs=64k seek=512 count=400 oflag=direct 2>/dev/null"

SAME = "dd if={device} bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/want"


def pollux(guest, verb, check=True):
    return guest.sh(POLLUX.format(verb=verb), timeout=120, check=check).text


def configure(guest, backing, completion):
    text = CONFIG.format(size=MEBIBYTES, backing=backing, completion=completion)
    guest.sh("rm -rf /tmp/data /tmp/log; mkdir /tmp/data; cat >/tmp/c.toml", input=text)


def detach(guest):
    guest.sh("nbd-client -d /dev/nbd0; while nbd-client -c /dev/nbd0 >/dev/null; do sleep 0.1; done",
             timeout=60, check=False)


def stop(guest, signal):
    guest.sh(f"p=$(cat /tmp/pid); kill -{signal} $p; while [ -d /proc/$p ]; do sleep 0.05; done",
             timeout=60)


def serves(guest, backing, completion, notes):
    say(f"# -- {backing}, {completion}")
    configure(guest, backing, completion)
    step(guest, "start", SERVE)
    pollux(guest, "volume create v")
    status = pollux(guest, "status v")
    for note in notes:
        assert note in status, f"status does not say: {note}\n{status}"
    step(guest, "attach", ATTACH)
    step(guest, "write and read", WRITE)
    step(guest, "trim and zeroes", ZEROES)
    step(guest, "fio with verify", FIO)
    noise = threading.Thread(target=lambda: guest.sh(NOISE, timeout=60, check=False))
    noise.start()
    time.sleep(2)
    stop(guest, "KILL")
    # The kernel holds what was not answered until its device goes.
    detach(guest)
    noise.join(60)
    step(guest, "start after kill -9", SERVE)
    step(guest, "attach", ATTACH)
    step(guest, "what was synced is there", SAME.format(device="/dev/nbd0"))
    detach(guest)
    stop(guest, "TERM")
    step(guest, "and on the device itself", SAME.format(device="/dev/nvme0n1"))


def refused(guest):
    say("# -- no queues for polling")
    guest.sh("rmmod nvme && modprobe nvme poll_queues=0; "
             "for i in $(seq 100); do [ -c /dev/ng0n1 ] && exit 0; sleep 0.1; done; exit 1")
    for backing in ("/dev/nvme0n1", "/dev/ng0n1"):
        configure(guest, backing, "poll")
        step(guest, "start", SERVE)
        # It is found when the volume is made: nothing of it is left.
        text = pollux(guest, "volume create v", check=False)
        assert "cannot be polled" in text and "poll_queues" in text, text
        stop(guest, "TERM")
        configure(guest, backing, "poll_if_possible")
        step(guest, "start", SERVE)
        pollux(guest, "volume create v")
        status = pollux(guest, "status v")
        assert "interrupts tell of the end" in status and "poll_queues" in status, status
        step(guest, "attach", ATTACH)
        step(guest, "write and read", WRITE)
        detach(guest)
        stop(guest, "TERM")


def main():
    (binary,) = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="pollux-nvme-") as directory:
        directory = Path(directory)
        disk = directory / "nvme.img"
        with open(disk, "wb") as made:
            made.truncate(MEBIBYTES << 20)
        devices = [*tools(directory, [binary]),
                   "-drive", f"if=none,id=nvme,format=raw,file={disk}",
                   "-device", "nvme,drive=nvme,serial=pollux,max_ioqpairs=8"]
        with guest_up(mem=1024, smp=2, devices=devices) as guest:
            mount_tools(guest)
            guest.sh("modprobe nbd nbds_max=1; modprobe nvme poll_queues=2; "
                     "for i in $(seq 100); do [ -c /dev/ng0n1 ] && [ -x /tools/pollux ] && exit 0; "
                     "sleep 0.1; done; ls -l /dev/n* /tools; exit 1")
            commands = "NVMe commands go past the block layer of /dev/nvme0n1"
            serves(guest, "/dev/ng0n1", "interrupt", [commands])
            serves(guest, "/dev/ng0n1", "poll", [commands + ", polled"])
            serves(guest, "/dev/nvme0n1", "poll", ["disk operations are polled"])
            refused(guest)
    say("done")


main()
