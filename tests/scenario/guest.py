"""A Linux kernel as the client of a failover: guest.py ALPHA_PORT BETA_PORT EXPORT

Runs in step with the test that started it: a line "kill" on stdout asks for the primary's death in
the middle of the load, and the line "promoted" on stdin says that the other node serves.

    nbd-client -C 2 ─► mkfs.ext4 ─► fio with verify; files, each fsync'ed, then its checksum noted
      ── kill -9 of the primary in mid-load, the other is promoted ──
    nbd-client to the other node ─► mount: the journal is replayed ─► e2fsck -f: clean
      ─► every file whose fsync was answered is there with its checksum
"""

import re
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, say, step  # noqa: E402

ATTACH = "nbd-client -N {export} -C 2 10.0.2.2 {port} /dev/{device} && blockdev --getsize64 /dev/{device}"

FIO = """
cd /mnt
fio --name=v --filename=/mnt/fio --size=6M --rw=randrw --bs=4k --ioengine=psync --fsync=16 \
    --verify=crc32c --verify_state_save=0 --output=/tmp/fio.out || { cat /tmp/fio.out; exit 1; }
rm /mnt/fio; sync
"""

# Prints a file's name and checksum once its fsync was answered; goes on until the disk is gone.
LOAD = """
cd /mnt
n=0
while :; do
    n=$((n + 1))
    head -c $((4096 + n % 37 * 1111)) /dev/urandom >f$n.tmp || break
    sum=$(sha256sum <f$n.tmp) || break
    dd if=f$n.tmp of=f$n bs=4k conv=fsync 2>/dev/null || break
    echo "kept f$n ${sum%% *}"
    rm f$n.tmp
done
echo "load ended after $n files"
"""

# Load that is not synced, in mid-flight when the primary dies.
NOISE = """
cd /mnt
while dd if=/dev/urandom of=noise bs=64k count=64 conv=notrunc 2>/dev/null; do :; done
"""

FILES_WANTED = 40


class Load:
    """The files whose fsync was answered, as the guest told them."""

    def __init__(self, guest):
        self.kept, self.rest = {}, b""
        self.thread = threading.Thread(target=self.run, args=(guest,), daemon=True)
        self.thread.start()

    def run(self, guest):
        guest.sh(LOAD, timeout=240, check=False, on_output=self.heard)

    def heard(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            found = re.fullmatch(rb"kept (\S+) ([0-9a-f]{64})", line)
            if found:
                self.kept[found[1].decode()] = found[2].decode()


def before(guest, port, export):
    guest.sh("modprobe nbd nbds_max=4")
    step(guest, "attach", ATTACH.format(export=export, port=port, device="nbd0"))
    sockets = guest.sh(f"ss -tn | grep -c ':{port}'").text.strip()
    assert sockets == "2", f"{sockets} connections instead of 2"
    step(guest, "mkfs", "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0 "
                        "&& mount /dev/nbd0 /mnt")
    step(guest, "fio with verify", FIO, timeout=240)


def until_mid_load(load):
    deadline = time.time() + 120
    while len(load.kept) < FILES_WANTED:
        assert time.time() < deadline and load.thread.is_alive(), f"only {len(load.kept)} files"
        time.sleep(0.05)


def after(guest, port, export, kept):
    step(guest, "attach to the other node", ATTACH.format(export=export, port=port, device="nbd1"))
    needs = guest.sh("dumpe2fs -h /dev/nbd1 2>/dev/null | grep features").text
    assert "needs_recovery" in needs, f"the journal has nothing to replay: {needs}"
    step(guest, "journal replay", "mkdir -p /mnt2 && mount /dev/nbd1 /mnt2 && umount /mnt2")
    step(guest, "e2fsck", "e2fsck -f -n /dev/nbd1")
    sums = step(guest, "checksums", "mount -o ro /dev/nbd1 /mnt2 && cd /mnt2 && sha256sum f*")
    found = dict(reversed(line.split(None, 1)) for line in sums.splitlines())
    lost = {name for name, checksum in kept.items() if found.get(name) != checksum}
    assert not lost, f"{len(lost)} of {len(kept)} synced files are lost or damaged: {sorted(lost)[:5]}"
    step(guest, "detach", "cd /; umount /mnt2 && nbd-client -d /dev/nbd1")


def main():
    alpha, beta, export = sys.argv[1:]
    with guest_up() as guest:
        before(guest, alpha, export)
        load = Load(guest)
        noise = threading.Thread(
            target=lambda: guest.sh(NOISE, timeout=240, check=False), daemon=True
        )
        noise.start()
        until_mid_load(load)
        say("kill")
        assert sys.stdin.readline() == "promoted\n"
        load.thread.join(60)
        noise.join(60)
        assert not load.thread.is_alive() and not noise.is_alive(), "writers hang on a dead disk"
        kept = dict(load.kept)
        # The dead disk's file system goes, whatever it still holds in memory.
        guest.sh("umount -l /mnt; nbd-client -d /dev/nbd0", check=False, timeout=60)
        after(guest, beta, export, kept)
        say(f"# {len(kept)} synced files are there with their checksums")
    say("done")


main()
