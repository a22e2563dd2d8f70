"""File systems of a Linux kernel under stress: guest_stress.py PORT EXPORT

Runs in step with the test that started it: a line "restart" on stdout, in the middle of the load,
asks that the secondary be killed and started again; the guest does not wait for that.

    nbd-client -C 2 ─► for ext4 and XFS: mkfs ─► fsx, several files at once ─► stress-ng's file system
    stressors with --verify ─► fstrim ─► unmount ─► e2fsck or xfs_repair: clean ─► detach
"""

import sys
import threading
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, say, step  # noqa: E402

FSX_OPERATIONS = 2500
STRESS_SECONDS = 40

# What fsstress does, by stress-ng: names, links, extents, attributes, sizes, from many processes.
STRESSORS = ("aiol chdir chmod copy-file dentry dir dirdeep fallocate fiemap filename flock getdent "
             "hdd iomix io-uring link metamix mknod open punch readahead rename seek sync-file "
             "symlink touch unlink utime xattr")

MKFS = {
    "ext4": "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0",
    "xfs": "mkfs.xfs -q -f /dev/nbd0",
}
CHECK = {"ext4": "e2fsck -f -n /dev/nbd0", "xfs": "xfs_repair -n /dev/nbd0"}

FSX = """
cd /mnt
for seed in 1 2 3; do
    fsx -q -N {operations} -S $seed -P /tmp fsx.$seed >/tmp/fsx.$seed.out 2>&1 &
    jobs="$jobs $!"
done
for job in $jobs; do wait $job || {{ tail -20 /tmp/fsx.*.out; exit 1; }}; done
rm -f fsx.*
"""

STRESS = """
known=$(stress-ng --class filesystem? 2>/dev/null | tr ' ' '\\n')
words=
for name in {names}; do
    echo "$known" | grep -qx "$name" && words="$words --$name 1"
done
echo "stressors:$words"
mkdir -p /mnt/stress
stress-ng $words --timeout {seconds}s --temp-path /mnt/stress --verify --metrics-brief \
    --hdd-bytes 16m --iomix-bytes 16m --fallocate-bytes 16m --no-rand-seed >/tmp/stress.out 2>&1
status=$?
# 0: passed; 3: a stressor is not possible on this kernel.
[ $status = 0 ] || [ $status = 3 ] || {{ tail -40 /tmp/stress.out; exit 1; }}
grep -E 'fail:' /tmp/stress.out && exit 1
rm -rf /mnt/stress
"""


def run(guest, kind):
    step(guest, f"{kind}: mkfs", f"{MKFS[kind]} && mount -t {kind} /dev/nbd0 /mnt")
    asking = threading.Timer(5, lambda: say("restart"))
    asking.start()
    fsx = FSX.format(operations=FSX_OPERATIONS)
    step(guest, f"{kind}: fsx, 3 x {FSX_OPERATIONS} operations", fsx, timeout=600)
    stress = STRESS.format(names=STRESSORS, seconds=STRESS_SECONDS)
    said = step(guest, f"{kind}: stress-ng", stress, timeout=STRESS_SECONDS * 8 + 120)
    say("# " + said.splitlines()[0])
    assert said.count("--") > 15, f"only these ran: {said}"
    step(guest, f"{kind}: trim", "fstrim -v /mnt && umount /mnt")
    step(guest, f"{kind}: check", CHECK[kind], timeout=600)
    asking.join()


def main():
    port, export = sys.argv[1:]
    with guest_up(mem=448, smp=2) as guest:
        guest.sh("modprobe nbd nbds_max=2; modprobe xfs")
        attach = f"nbd-client -N {export} -C 2 10.0.2.2 {port} /dev/nbd0"
        step(guest, "attach", attach)
        for kind in MKFS:
            run(guest, kind)
        wrong = guest.sh("dmesg | grep -E 'I/O error|EXT4-fs error|XFS.*(corrupt|error)'",
                         check=False).text
        assert not wrong, wrong
        step(guest, "detach", "nbd-client -d /dev/nbd0")
    say("done")


main()
