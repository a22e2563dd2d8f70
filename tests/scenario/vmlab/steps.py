"""What the scripts of guests share: a guest that is up, its steps, and words on stdout.

Lines that begin with # are for people; the others are for the test that started the script.
"""

import contextlib
import time

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
