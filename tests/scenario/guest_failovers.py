"""A data base on a Linux kernel through failovers: guest_failovers.py PORTS EXPORT ROUNDS

PORTS are those of the nodes with data, with commas. Runs in step with the test that started it: a
line "kill" on stdout asks for the death of the primary in mid-load; a line with an index on stdin
says which of PORTS serves from now on, the first one before anything else.

    nbd-client ─► mkfs.ext4 ─► SQLite, synchronous = EXTRA: a row, a commit, "kept N" ─► …
      ── kill -9 of the primary, a majority has another one serve ──
    every time: nbd-client to that one ─► mount: the journal is replayed ─► e2fsck -f: clean
      ─► SQLite: integrity_check says ok, every row whose commit was answered is there, as written

Rounds take turns between a write-ahead log and a rollback journal. The latter commits by removing a
file: only EXTRA syncs its folder too, FULL may lose the last commit (SQLite, "PRAGMA synchronous").
"""

import re
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent / "vmlab"))
from steps import guest_up, say, step  # noqa: E402

ATTACH = "nbd-client -N {export} -C 2 10.0.2.2 {port} /dev/nbd{at} && blockdev --getsize64 /dev/nbd{at}"
MKFS = "mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0 && mount /dev/nbd0 /mnt"
TABLE = "sqlite3 /mnt/db 'CREATE TABLE rows (n INTEGER PRIMARY KEY, text TEXT NOT NULL)'"

# What row N holds; SQLite's own function, so that the guest writes and compares with one.
TEXT = "printf('%0{width}d', {n})"
WIDTH = 900

# Commits rows one by one, from FIRST on, and says which commits were answered; ends at the first
# error. Interactive, because only then are answers written at once.
LOAD = """
coproc db {{ sqlite3 -interactive /mnt/db 2>&1; }}
exec 5>&"${{db[1]}}" 6<&"${{db[0]}}"
printf '%s\\n' '.prompt "" ""' 'PRAGMA journal_mode = {journal};' 'PRAGMA synchronous = EXTRA;' >&5
n={first}
while :; do
    printf '%s\\n' "INSERT INTO rows VALUES ($n, printf('%0{width}d', $n)); SELECT 'kept ' || $n;" >&5 || break
    while read -r line <&6; do
        case $line in
            *"kept $n") echo "kept $n"; break ;;
            *rror*) echo "load ended: $line"; break 2 ;;
        esac
    done
    n=$((n + 1))
done
exec 5>&- 6<&-
"""

COMMITS_WANTED = 25


class Load:
    """Commits as the guest tells them. A commit that was under way at the end may be there or not."""

    def __init__(self, guest, first, journal):
        self.kept, self.rest = [], b""
        script = LOAD.format(first=first, journal=journal, width=WIDTH)
        self.thread = threading.Thread(target=self.run, args=(guest, script), daemon=True)
        self.thread.start()

    def run(self, guest, script):
        guest.sh(script, timeout=300, check=False, on_output=self.heard)

    def heard(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        found = (re.fullmatch(rb"kept (\d+)", line.strip()) for line in lines)
        self.kept += [int(match[1]) for match in found if match]

    def until_mid_load(self):
        deadline = time.time() + 240
        while len(self.kept) < COMMITS_WANTED:
            assert time.time() < deadline and self.thread.is_alive(), f"only {self.kept}"
            time.sleep(0.05)

    def finish(self):
        self.thread.join(120)
        assert not self.thread.is_alive(), "the data base hangs on a dead disk"


def query(guest, sql):
    return guest.sh(f'sqlite3 -bail /mnt/db "{sql}"', timeout=120).text.split()


def judge(guest, kept, under_way):
    """Every answered commit is there as it was written, and nothing that nobody asked for."""
    checked = query(guest, "PRAGMA integrity_check")
    assert checked == ["ok"], checked
    found = {int(n) for n in query(guest, "SELECT n FROM rows")}
    lost = sorted(kept - found)
    assert not lost, f"{len(lost)} of {len(kept)} committed rows are lost: {lost[:5]}"
    assert found - kept <= under_way, f"rows nobody committed: {sorted(found - kept)[:5]}"
    wrong = query(guest, f"SELECT n FROM rows WHERE text <> {TEXT.format(width=WIDTH, n='n')}")
    assert not wrong, f"rows are not as they were written: {wrong[:5]}"
    return found


def attach(guest, port, export, at):
    guest.sh(ATTACH.format(export=export, port=port, at=at), timeout=120)


def main():
    ports, export, rounds = sys.argv[1].split(","), sys.argv[2], int(sys.argv[3])
    port = ports[int(sys.stdin.readline())]
    kept, under_way = set(), set()
    with guest_up() as guest:
        guest.sh(f"modprobe nbd nbds_max={rounds + 1}")
        attach(guest, port, export, 0)
        guest.sh(MKFS, timeout=120)
        guest.sh(TABLE, timeout=60)
        for at in range(1, rounds + 1):
            first = max(kept | under_way, default=0) + 1
            load = Load(guest, first, ["WAL", "DELETE"][at % 2])
            load.until_mid_load()
            say("kill")
            port = ports[int(sys.stdin.readline())]
            load.finish()
            kept |= set(load.kept)
            under_way.add(max(load.kept) + 1)
            # The dead disk's file system goes, whatever it still holds in memory.
            guest.sh(f"umount -l /mnt; nbd-client -d /dev/nbd{at - 1}", check=False, timeout=60)
            attach(guest, port, export, at)
            step(guest, "journal replay", f"mount /dev/nbd{at} /mnt && umount /mnt")
            step(guest, "e2fsck", f"e2fsck -f -n /dev/nbd{at}")
            guest.sh(f"mount /dev/nbd{at} /mnt", timeout=120)
            kept = judge(guest, kept, under_way)
            say(f"# failover {at}: {len(kept)} rows")
        guest.sh(f"umount /mnt && nbd-client -d /dev/nbd{rounds}", timeout=120)
    say(f"# {len(kept)} committed rows are there after {rounds} failovers")
    say("done")


main()
