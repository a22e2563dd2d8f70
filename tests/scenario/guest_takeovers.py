"""A Linux kernel as the client of a node that is taken over: guest_takeovers.py PORT EXPORT ROUNDS

Runs in step with the test that started it: a line "take over" on stdout, in the middle of the load,
asks for the next process; the line "taken" on stdin says that it serves.

    nbd-client -C 2 ─► mkfs.ext4 ─► fio with verify, and files with fsync, over all rounds
      ─► fio: no error; the kernel's log: no I/O error; e2fsck -f: clean; detach
"""

import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, say  # noqa: E402

ATTACH = "nbd-client -N {export} -C 2 10.0.2.2 {port} /dev/nbd0 && blockdev --getsize64 /dev/nbd0"
MKFS = "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0 && mount /dev/nbd0 /mnt"

# Until the file says stop: fio writes and verifies 8 MiB again and again; its exit code counts.
LOAD = """
cd /mnt
rounds=0
while [ ! -e /tmp/stop ]; do
    fio --name=v --filename=/mnt/fio --size=8M --rw=randrw --bs=4k --ioengine=psync --fsync=16 \
        --verify=crc32c --verify_state_save=0 --output=/tmp/fio.out || { cat /tmp/fio.out; exit 1; }
    rounds=$((rounds + 1))
    echo "fio $rounds"
done
sync
echo "fio ran $rounds times without error"
"""

# Each file is synced and read back past the page cache.
FILES = """
cd /mnt
n=0
while [ ! -e /tmp/stop ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=f bs=4k count=$((1 + n % 16)) conv=fsync 2>/dev/null || exit 1
    sum=$(sha256sum <f) || exit 1
    echo 1 >/proc/sys/vm/drop_caches
    [ "$sum" = "$(sha256sum <f)" ] || exit 1
done
echo "$n files were synced and read back"
"""


class Job:
    """A script in the guest that runs beside others."""

    def __init__(self, guest, script):
        self.result = None
        self.said = b""
        self.thread = threading.Thread(target=self.run, args=(guest, script), daemon=True)
        self.thread.start()

    def run(self, guest, script):
        self.result = guest.sh(script, timeout=600, check=False, on_output=self.heard)

    def heard(self, data):
        self.said += data

    def finish(self):
        self.thread.join(120)
        assert not self.thread.is_alive(), "the guest's load hangs"
        text = self.said.decode(errors="replace").strip()
        assert self.result.rc == 0, f"the guest's load failed: {text[-2000:]}"
        say("# " + text.splitlines()[-1])


def main():
    port, export, rounds = sys.argv[1:]
    with guest_up() as guest:
        guest.sh("modprobe nbd nbds_max=4")
        guest.sh(ATTACH.format(export=export, port=port), timeout=120)
        guest.sh(MKFS, timeout=120)
        jobs = [Job(guest, LOAD), Job(guest, FILES)]
        for _ in range(int(rounds)):
            time.sleep(3)
            assert all(job.thread.is_alive() for job in jobs), "the load ended early"
            say("take over")
            assert sys.stdin.readline() == "taken\n"
        time.sleep(3)
        guest.sh("touch /tmp/stop")
        for job in jobs:
            job.finish()
        log = guest.sh("dmesg").text
        wrong = [line for line in log.splitlines() if "rror" in line and "nbd" in line]
        assert not wrong, wrong
        guest.sh("cd /; umount /mnt && e2fsck -f -n /dev/nbd0 && nbd-client -d /dev/nbd0", timeout=120)
    say("done")


main()
