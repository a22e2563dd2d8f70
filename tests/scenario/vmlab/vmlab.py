#!/usr/bin/env python3
"""A small QEMU guest that runs Debian's 6.12 kernel, for tests against the kernel's NBD client.

    vmlab.py build       fetch the kernel, build the guest image (once; about a minute)

and, from a test:

    from vmlab import Guest
    with Guest() as guest:
        guest.sh("modprobe nbd")

QEMU enters the kernel's ELF image directly (PVH: no boot loader, no decompression in the guest).
A tiny initramfs holds busybox and the drivers for the disk that carries /usr (read-only ext4); the
root stays the initramfs. Commands travel over virtio-serial ports, never over the network under
test. In the guest 10.0.2.2 is this machine's 127.0.0.1; there is no other route. No KVM is needed.
"""
import contextlib, ctypes, fnmatch, glob, hashlib, lzma, os, re, secrets, shutil, signal, socket
import stat, struct, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CACHE = Path(os.environ.get("POLLUX_GUEST_CACHE") or Path.home() / ".cache/pollux-guest")

# --------------------------------------------------------------------------- what a guest holds

KERNEL = r"^linux-image-6\.12\.[0-9.]+\+deb12-amd64-unsigned$"

# Programs copied from this machine with their shared libraries: apt package -> programs.
PROGRAMS = {
    "busybox-static": ["busybox"],
    "bash": ["bash"],
    "coreutils": ["dd", "head", "timeout", "sha256sum"],
    "kmod": ["kmod", "modprobe", "insmod", "rmmod", "lsmod"],
    "mount": ["mount", "umount"],
    "e2fsprogs": ["mke2fs", "mkfs.ext4", "e2fsck", "dumpe2fs"],
    "iproute2": ["ip", "ss"],
    "nbd-client": ["nbd-client"],
    "fio": ["fio"],
    "xfsprogs": ["mkfs.xfs", "xfs_repair"],
    "stress-ng": ["stress-ng"],
    "sqlite3": ["sqlite3"],
    "util-linux": ["fstrim", "blkdiscard"],
}
# The file system exerciser, which Debian does not have: crate and version.
FSX = ["fsx", "0.3.1"]
BUILD_TOOLS = {"qemu-system-x86": ["qemu-system-x86_64"], "zstd": ["zstd"], "kmod": ["depmod"],
               "e2fsprogs": ["mke2fs"], "libc-bin": ["ldd"], "tar": ["tar"]}

# Kernel modules (globs below kernel/), taken with everything they depend on.
MODULES = """
    drivers/block/{nbd,virtio_blk,drbd/drbd}
    drivers/nvme/host/nvme
    drivers/net/virtio_net
    drivers/char/hw_random/virtio-rng
    fs/ext4/*  fs/xfs/*
    crypto/*  arch/x86/crypto/*  lib/*
"""
# Loaded by the initramfs, before /usr (which needs them) is there.
EARLY = ["virtio_blk", "virtio_net", "crc32c_intel", "crc32c_generic", "ext4"]

INIT = r"""#!/busybox sh
# First program of the guest: load the early modules, mount /usr, hand over.
/busybox mount -t devtmpfs dev /dev; /busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
while read m; do /busybox insmod /early/$m; done </early/order
for d in /sys/block/vd*; do
    read s <$d/serial
    [ "$s" = vmlab-usr ] && /busybox mount -t ext4 -o ro,noatime /dev/${d##*/} /usr
done
exec /usr/lib/vmlab/setup
"""

SETUP = r"""#!/usr/bin/bash
# Second stage: the rest of the file systems, the network; then busybox init starts the agents.
export PATH=/usr/sbin:/usr/bin
mkdir /dev/pts /dev/shm /dev/vmlab
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mkdir /run/vmlab /run/lock
ln -s /proc/self/fd /dev/fd; ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout
for p in /sys/class/virtio-ports/*; do read n <$p/name; ln -s ../${p##*/} /dev/vmlab/$n; done
# No default route on purpose: a guest reaches this machine's loopback and nothing else.
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
exec busybox init
"""

AGENT = r"""#!/usr/bin/bash
# Serves one virtio-serial port. Request: "CMDLEN INLEN NONCE\n", the command, its standard input.
# Answer: the raw output as it comes, then NUL NONCE SPACE STATUS NUL.
exec 3<>/dev/vmlab/$1 || exit
export PATH=/usr/sbin:/usr/bin:/usr/lib/vmlab HOME=/root TERM=dumb
cd /root
f=/run/vmlab/$1
while :; do
    read -r -u 3 clen ilen nonce || { sleep 0.2; continue; }
    head -c "$clen" <&3 >$f.cmd        # GNU head takes exactly that much, busybox's takes more
    head -c "$ilen" <&3 >$f.in
    setsid bash $f.cmd <$f.in >&3 2>&1 3>&- &
    echo $! >$f.pid
    wait $!
    printf '\000%s %d\000' "$nonce" $? >&3
done
"""

HELPERS = {  # small commands on the guest's PATH
    "wait-for": r"""#!/usr/bin/bash
# wait-for SECONDS COMMAND...: repeat the command until it succeeds.
end=$((SECONDS + $1)); shift
until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "wait-for: gave up on: $*" >&2; exit 1; }
    sleep 0.2
done
""",
}

ETC = {  # the guest's /etc
    "passwd": "root::0:0:root:/root:/usr/bin/bash\n",
    "group": "root:x:0:\ndisk:x:6:\n",
    "hosts": "127.0.0.1 localhost\n10.0.2.2 host\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "inittab": "".join(f"::respawn:/usr/lib/vmlab/agent ch{i}\n" for i in range(4)),
}
DIRS = "dev proc sys run tmp root mnt usr early etc var/lock var/run lib/modules".split()
CHANNELS = ETC["inittab"].count("agent")

# ----------------------------------------------------------------------------------- build


def sh(*cmd, **kw):
    return subprocess.run([str(c) for c in cmd], check=True, text=True, stdout=subprocess.PIPE,
                          **kw).stdout


def which(name):
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", ""))


def missing(table):
    return [package for package, programs in table.items() if not all(map(which, programs))]


def find_kernel_package(cache):
    """Fetch the newest matching kernel package, or fall back on one fetched before."""
    names = sh("apt-cache", "search", "--names-only", KERNEL).split("\n")
    names = [n.split(" - ")[0] for n in names if n]
    key = lambda n: [int(x) for x in re.findall(r"\d+", n)]
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    for name in sorted(names, key=key, reverse=True)[:1]:
        if not list(debs.glob(f"{name}_*.deb")):
            print(f"fetching {name}", flush=True)
            subprocess.run(["apt-get", "download", "-qq", name], cwd=debs, check=True)
    have = sorted(debs.glob("linux-image-*.deb"), key=lambda p: key(p.name))
    if not have:
        sys.exit("vmlab: apt knows no package like linux-image-6.12.*+deb12-amd64-unsigned; "
                 "run: apt-get update")
    return have[-1]


def find_fsx():
    """Builds fsx once."""
    name, version = FSX
    root = CACHE / f"{name}-{version}"
    if not (root / "bin" / name).exists():
        print(f"building {name} {version}", flush=True)
        subprocess.run(["cargo", "install", "--quiet", "--root", root, "--version", version, name],
                       check=True, cwd=CACHE)
    return str(root / "bin" / name)


def extract_vmlinux(bzimage):
    """The ELF kernel inside a bzImage (zstd or xz), which QEMU can enter directly."""
    data = bzimage.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[(data[0x1F1] + 1) * 512 + offset:][:length - 4]  # the last 4 bytes: its size
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        elf = subprocess.run(["zstd", "-dqc"], input=payload, stdout=subprocess.PIPE,
                             check=True).stdout
    else:
        elf = lzma.decompress(payload)
    assert elf[:4] == b"\x7fELF", "the kernel image holds no ELF file"
    return elf


def expand(pattern):
    """Shell-like {a,b} in a glob."""
    m = re.search(r"\{([^{}]*)\}", pattern)
    if not m:
        return [pattern]
    return [x for alt in m[1].split(",") for x in expand(pattern[:m.start()] + alt + pattern[m.end():])]


def pick_modules(tree, version):
    """Paths (below lib/modules/VERSION) of the modules wanted, each after its dependencies."""
    sh("depmod", "-b", tree, version)
    deps = {}
    for line in (tree / "lib/modules" / version / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        deps[path] = rest.split()
    wanted = [f"kernel/{p}.ko*" for g in MODULES.split() for p in expand(g)]
    order = []

    def add(path):
        for p in reversed(deps[path]):  # modules.dep lists the nearest dependency first
            if p not in order:
                order.append(p)
        if path not in order:
            order.append(path)
    for path in deps:
        if any(fnmatch.fnmatch(path, w) and path.count("/") == w.count("/") for w in wanted):
            add(path)
    early = []
    for name in EARLY:
        path = next(p for p in deps if re.sub(r"\.ko.*", "", p.split("/")[-1]).replace("-", "_") == name)
        early += [p for p in reversed(deps[path]) if p not in early] + [path]
    return order, early


def copy_programs(table, usr):
    """Copy programs and, found with ldd, their libraries; all libraries go to one directory."""
    libs = usr / "lib/x86_64-linux-gnu"

    def need(path):
        out = subprocess.run(["ldd", path], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout
        for name, lib in re.findall(r"(\S+) => (/\S+)", out):
            if not (libs / name).exists():
                shutil.copy(lib, libs / name)

    def put(src, dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        real = os.path.realpath(src)
        if os.path.islink(src) and Path(real).parent in (Path("/usr/bin"), Path("/usr/sbin"), Path("/bin"), Path("/sbin")):
            twin = dest.parent / os.path.basename(real)   # mkfs.ext4 -> mke2fs, modprobe -> kmod
            target = usr / "bin" / os.path.basename(real)
            if not target.exists() and not twin.exists():
                put(real, target)
            if target != dest and not dest.exists():
                dest.symlink_to(os.path.relpath(target if target.exists() else twin, dest.parent))
            return
        shutil.copy(real, dest)
        need(real)
    for programs in table.values():
        for program in programs:
            put(which(program), usr / "bin" / Path(program).name)


class Cpio:
    """Writes the newc archive that the kernel unpacks; no privilege needed."""

    def __init__(self):
        self.out, self.ino = bytearray(), 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.ino += 1
        head = "070701" + "".join("%08X" % v for v in (
            self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0))
        for part in (head.encode() + name.encode() + b"\0", data):
            self.out += part + b"\0" * (-len(part) % 4)

    def bytes(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.out)


def recipe():
    """A fingerprint of everything in this file that goes into the image."""
    parts = [KERNEL, PROGRAMS, FSX, MODULES, EARLY, INIT, SETUP, AGENT, HELPERS, ETC, DIRS]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def build():
    lacking = sorted(set(missing(PROGRAMS) + missing(BUILD_TOOLS)))
    if lacking:
        sys.exit("vmlab: these packages are needed and not installed: " + " ".join(lacking) +
                 "\nInstall them with:  apt-get install -y --no-install-recommends " + " ".join(lacking))
    start = time.time()
    deb = find_kernel_package(CACHE)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="build-") as tmp:
        tmp = Path(tmp)
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
        sh("tar", "-x", "-C", tmp, "./boot", "./lib", stdin=tar.stdout)
        tar.wait()
        version = os.listdir(tmp / "lib/modules")[0]
        out = tmp / "out"
        out.mkdir()
        (out / "vmlinux").write_bytes(extract_vmlinux(tmp / "boot" / f"vmlinuz-{version}"))

        usr = tmp / "usr"
        for d in ("bin", "lib/x86_64-linux-gnu", "lib64", "lib/vmlab", f"lib/modules/{version}"):
            (usr / d).mkdir(parents=True)
        (usr / "sbin").symlink_to("bin")
        copy_programs(PROGRAMS, usr)
        shutil.copy("/lib64/ld-linux-x86-64.so.2", usr / "lib64")
        for lib in glob.glob("/lib/x86_64-linux-gnu/libgcc_s.so.1"):  # dlopened by pthread_exit
            shutil.copy(lib, usr / "lib/x86_64-linux-gnu")
        copy_programs({"fsx": [find_fsx()]}, usr)
        busybox = (usr / "bin/busybox").read_bytes()
        for applet in sh(usr / "bin/busybox", "--list").split():
            if not os.path.lexists(usr / "bin" / applet):
                (usr / "bin" / applet).symlink_to("busybox")
        for name, text in {"agent": AGENT, "setup": SETUP, **HELPERS}.items():
            (usr / "lib/vmlab" / name).write_text(text)
            (usr / "lib/vmlab" / name).chmod(0o755)

        order, early = pick_modules(tmp, version)
        src, dst = tmp / "lib/modules" / version, usr / "lib/modules" / version
        plain = lambda p: re.sub(r"\.xz$", "", p)
        content = lambda p: (lzma.decompress if p.endswith(".xz") else bytes)((src / p).read_bytes())
        for p in order:
            (dst / plain(p)).parent.mkdir(parents=True, exist_ok=True)
            (dst / plain(p)).write_bytes(content(p))
        for f in src.glob("modules.builtin*"):
            shutil.copy(f, dst)
        shutil.copy(src / "modules.order", dst)
        depbase = tmp / "depbase"                        # depmod looks below DIR/lib/modules
        depbase.mkdir()
        (depbase / "lib").symlink_to(usr / "lib")
        sh("depmod", "-b", depbase, version)

        size = int(sh("du", "-sk", "--apparent-size", usr).split()[0])
        sh("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit", "-m", "0",
           "-N", "4096", "-E", "root_owner=0:0", "-d", usr, out / "usr.img", f"{size * 21 // 20 + 16384}k")

        cpio = Cpio()
        dirs = {str(p) for d in DIRS for p in [Path(d), *Path(d).parents] if str(p) != "."}
        for d in sorted(dirs - {"lib", "lib/modules"}):
            cpio.add(d, stat.S_IFDIR | (0o1777 if d == "tmp" else 0o755))
        for link in ("bin", "sbin", "lib", "lib64"):
            cpio.add(link, stat.S_IFLNK | 0o777, f"usr/{link}".encode())
        cpio.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
        cpio.add("busybox", stat.S_IFREG | 0o755, busybox)
        cpio.add("init", stat.S_IFREG | 0o755, INIT.encode())
        for name, text in ETC.items():
            cpio.add(f"etc/{name}", stat.S_IFREG | 0o644, text.encode())
        names = [plain(p).split("/")[-1] for p in early]
        for name, p in zip(names, early):
            cpio.add(f"early/{name}", stat.S_IFREG | 0o644, content(p))
        cpio.add("early/order", stat.S_IFREG | 0o644, "".join(n + "\n" for n in names).encode())
        (out / "initramfs.cpio").write_bytes(cpio.bytes())
        (out / "recipe").write_text(f"{recipe()} {version}\n")
        (CACHE / "image.new").unlink(missing_ok=True)
        final = CACHE / f"{version}-{recipe()}"
        shutil.rmtree(final, ignore_errors=True)
        out.rename(final)
        for old in CACHE.glob("*+deb12-*"):
            if old != final:
                shutil.rmtree(old)
        (CACHE / "image.new").symlink_to(final.name)
        (CACHE / "image.new").rename(CACHE / "image")
    mb = lambda f: f"{(final / f).stat().st_size / 2**20:.1f} MiB"
    print(f"{version}: {len(order)} modules, initramfs {mb('initramfs.cpio')}, /usr {mb('usr.img')}, "
          f"built in {time.time() - start:.0f} s")


def is_built():
    """There is an image, made by this version of the tool."""
    stamp = CACHE / "image/recipe"
    return stamp.exists() and stamp.read_text().split()[0] == recipe()


# ------------------------------------------------------------------------------------- the guest


class VMError(Exception):
    pass


class Result:
    """rc: exit status; out: standard output and error, together, as bytes; text: decoded."""

    def __init__(self, rc, out):
        self.rc, self.out = rc, out

    text = property(lambda self: self.out.decode(errors="replace"))

    def __repr__(self):
        return f"Result(rc={self.rc}, {len(self.out)} bytes: {self.text[-200:]!r})"


# A child must not outlive us, even if we are killed: the kernel sends it SIGKILL when the *thread*
# that started it ends; so one thread, which lives as long as this process, starts them all.
_libc = ctypes.CDLL(None)
_spawner = ThreadPoolExecutor(1)


def spawn(cmd, **kw):
    """Popen that ends with this process; for the servers of a test as well."""
    die = lambda: _libc.prctl(1, signal.SIGKILL)
    return _spawner.submit(subprocess.Popen, [str(c) for c in cmd], preexec_fn=die, **kw).result()


class Guest:
    """One guest, booted by `with` and gone with the end of its block."""

    def __init__(self, mem=320, smp=1, devices=(), accel="tcg,thread=multi"):
        self.dir = Path(tempfile.mkdtemp(prefix="pollux-guest-"))
        self.mem, self.smp, self.devices, self.accel, self.proc = mem, smp, devices, accel, None
        self.console = self.dir / "console"

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, wait=90):
        image = CACHE / "image"
        if not image.exists():
            raise VMError("no guest image; run: vmlab.py build")
        kids, mine = [], {}

        def pair(name):
            a, b = socket.socketpair()
            mine[name] = a
            kids.append(b)
            return b.fileno()
        append = ("console=ttyS0 quiet loglevel=4 panic=-1 oops=panic reboot=t nokaslr mitigations=off "
                  "cryptomgr.notests tsc=reliable random.trust_cpu=on")
        addr = iter(range(2, 30))
        cmd = ["qemu-system-x86_64", *MACHINE, "-accel", self.accel, "-m", self.mem,
               # With one possible processor, TCG before QEMU 8.1 leaves out the memory barriers that
               # virtio needs (upstream commit c914d46d0a); so there is always room for a second.
               "-smp", f"{self.smp},maxcpus={max(2, self.smp)}", "-nodefaults", "-no-user-config",
               "-no-reboot", "-display", "none",
               "-kernel", image / "vmlinux", "-initrd", image / "initramfs.cpio", "-append", append,
               "-serial", f"file:{self.console}",
               "-device", f"virtio-serial-pci,addr={next(addr)}",
               "-netdev", "user,id=host,ipv6=off",
               "-device", f"virtio-net-pci,netdev=host,romfile=,addr={next(addr)}"]
        for i in range(CHANNELS):
            cmd += ["-chardev", f"socket,id=ch{i},fd={pair(f'ch{i}')}",
                    "-device", f"virtserialport,chardev=ch{i},name=ch{i}"]
        cmd += ["-drive", f"if=none,id=usr,format=raw,readonly=on,file={image / 'usr.img'}",
                "-device", f"virtio-blk-pci,drive=usr,serial=vmlab-usr,addr={next(addr)}"]
        cmd += [str(word) for word in self.devices]
        self.proc = spawn(cmd, stdin=subprocess.DEVNULL, stdout=open(self.dir / "qemu", "wb"),
                          stderr=subprocess.STDOUT, pass_fds=[s.fileno() for s in kids])
        for s in kids:
            s.close()
        self.free = list(mine.items())      # channels no command uses
        self.channels = threading.Condition()
        self.sh("true", timeout=wait)
        return self

    def kill(self):
        if self.proc:
            self.proc.kill()
            self.proc.wait()
            for _, s in self.free:
                s.close()
            self.free = []

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    def _why(self, what):
        log = b""
        for path in (self.dir / "qemu", self.console):
            with contextlib.suppress(OSError):
                log += path.read_bytes()[-3000:]
        return VMError(f"guest {what}\n{log.decode(errors='replace')}".rstrip())

    def sh(self, cmd, timeout=60, input=b"", check=True, on_output=None):
        """Run a bash command (or whole script); up to four at a time. On timeout it is killed and
        TimeoutError raised. With on_output, output goes there as it comes and not into the result."""
        deadline = time.time() + timeout
        if not self.alive():
            raise self._why("is not running")
        with self.channels:
            if not self.channels.wait_for(lambda: self.free, timeout):
                raise TimeoutError(f"guest: all {CHANNELS} command channels are busy")
            name, s = self.free.pop(0)
        nonce = secrets.token_hex(8)
        cmd = cmd.encode() if isinstance(cmd, str) else cmd
        input = input.encode() if isinstance(input, str) else input
        try:
            s.settimeout(max(deadline - time.time(), 0.01))
            s.sendall(b"%d %d %s\n" % (len(cmd), len(input), nonce.encode()) + cmd + input)
            result = self._answer(s, nonce, deadline, on_output)
        except (socket.timeout, TimeoutError):
            self._abandon(name, s, nonce)
            raise TimeoutError(f"guest: no end after {timeout} s of: {cmd[:200].decode()}") from None
        except OSError as e:
            raise self._why(f"gone ({e})") from None
        with self.channels:
            self.free.append((name, s))
            self.channels.notify()
        if check and result.rc:
            raise VMError(f"guest: status {result.rc} from: {cmd[:300].decode()}\n{result.text[-4000:]}")
        return result

    def _answer(self, s, nonce, deadline, on_output):
        end = re.compile(rb"\x00%s (\d+)\x00" % nonce.encode())
        buf, done = b"", b""
        while True:
            s.settimeout(max(deadline - time.time(), 0.01))
            data = s.recv(1 << 16)
            if not data:
                self.proc.wait()
                raise self._why(f"ended (QEMU status {self.proc.returncode}) before the command did")
            buf += data
            m = end.search(buf)
            ready = m.start() if m else buf.rfind(b"\0", -40) if b"\0" in buf[-40:] else len(buf)
            if on_output:
                on_output(buf[:ready])
            else:
                done += buf[:ready]
            buf = buf[ready:]
            if m:
                return Result(int(m[1]), done)

    def _abandon(self, name, s, nonce):
        """Kill an overdue command; its channel returns once it really ended."""
        def later():
            with contextlib.suppress(Exception):
                self.sh(f"p=$(cat /run/vmlab/{name}.pid) && kill -9 -$p", timeout=10, check=False)
                self._answer(s, nonce, time.time() + 30, None)
                with self.channels:
                    self.free.append((name, s))
                    self.channels.notify()
        if self.alive():
            threading.Thread(target=later, daemon=True).start()


# microvm boots 0.35 s faster but hangs now and then (its timer interrupt never comes); the model of
# the processor, -smp, tb-size and the memory size make no difference.
MACHINE = ["-M", "q35", "-cpu", "max,la57=off"]


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit(__doc__)
    build()
