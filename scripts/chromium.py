"""A Chromium for the tests of the pages: the one on the PATH, else Debian's package, installed where we are root.

Its many libraries and fonts are why it is installed instead of unpacked. `python scripts/chromium.py` prints the
program's path. Two callers at once wait for each other.
"""

import fcntl
import os
import shutil
import sys

from prometheus import Unavailable, run, say

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
"""It talks to loopback only: without these it looks for its makers at every start."""


def find():
    """Return the path of the program; the first call on a machine without one takes a while. Raises Unavailable."""
    found = installed()
    if found:
        return found
    os.makedirs(os.path.join(ROOT, ".cache"), exist_ok=True)
    with open(os.path.join(ROOT, ".cache", "chromium.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = installed()
        if not found:
            install()
            found = installed()
    if not found:
        raise Unavailable("no Chromium: its package was installed and brought none")
    return found


def installed():
    """Return the path of a Chromium on this machine, or nothing."""
    return next((found for name in NAMES for found in [shutil.which(name)] if found), "")


def install():
    """Install Debian's package. Raises Unavailable, with what a person can do."""
    if not shutil.which("apt-get"):
        raise Unavailable("no Chromium: it is not on the PATH, and this is no Debian to take its package from")
    if os.geteuid() != 0:
        raise Unavailable("no Chromium: install it with `sudo apt-get install chromium`; only root can")
    say("installing Debian's package of Chromium (once, about 100 MB)")
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "install", "chromium", "fonts-dejavu-core"]
    problem = run(command, ROOT)
    if problem:
        run(["apt-get", "-q", "update"], ROOT)
        problem = run(command, ROOT)
    if problem:
        raise Unavailable("no Chromium: `apt-get install chromium` failed: " + problem)


if __name__ == "__main__":
    try:
        print(find())
    except Unavailable as problem:
        sys.exit(str(problem))
