"""What the scripts of guests share: a guest that is up, its steps, and words on stdout.

Lines that begin with # are for people; the others are for the test that started the script.
"""

import contextlib
import subprocess
import time
from pathlib import Path

import vmlab


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def guest_up(**options):
    """A guest that has booted; its image is built if that was not done yet."""
    if not vmlab.is_built():
        vmlab.build()
    began = time.time()
    with vmlab.Guest(**options) as guest:
        say(f"# guest up: {time.time() - began:.1f} s")
        yield guest


def step(guest, name, script, timeout=240, check=True):
    """Runs a script in the guest and says how long it took; what it printed."""
    began = time.time()
    result = guest.sh(script, timeout=timeout, check=check)
    say(f"# {name}: {time.time() - began:.1f} s")
    return result.text


def tools(directory, binaries):
    """Devices of a guest that carry these programs and the libraries they were linked with."""
    tree = directory / "tools"
    tree.mkdir()
    for binary in binaries:
        subprocess.run(["strip", "-o", tree / Path(binary).name, binary], check=True)
        linked = subprocess.run(["ldd", binary], check=True, stdout=subprocess.PIPE, text=True)
        for line in linked.stdout.splitlines():
            path = line.partition("=> ")[2].partition(" (")[0]
            if path:
                (tree / Path(path).name).write_bytes(Path(path).read_bytes())
    image = directory / "tools.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "160M"], check=True)
    return ["-drive", f"if=none,id=tools,format=raw,readonly=on,file={image}",
            "-device", "virtio-blk-pci,drive=tools,serial=tools"]


def mount_tools(guest):
    """They are in /tools from here on."""
    guest.sh("mkdir -p /tools; for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = tools ] && "
             "mount -o ro /dev/${d##*/} /tools && exit 0; done; exit 1")
