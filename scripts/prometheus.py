"""A Prometheus server for the tests: the one on the PATH, else Debian's package, unpacked into `.cache/` without root.

`python scripts/prometheus.py` prints the program's path. Two callers at once wait for each other.
"""

import fcntl
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, ".cache", "prometheus")
PROGRAM = os.path.join(FOLDER, "usr", "bin", "prometheus")
PATIENCE = 300
"""Seconds for the package lists, and again for the package."""


class Unavailable(Exception):
    """There is no Prometheus to be had on this machine; the message says why."""


def find():
    """Return the path of the program; the first call on a machine without one takes a while. Raises Unavailable."""
    found = shutil.which("prometheus")
    if found:
        return found
    os.makedirs(os.path.dirname(FOLDER), exist_ok=True)
    with open(FOLDER + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(PROGRAM):
            unpack()
    return PROGRAM


def unpack():
    """Put Debian's package into `.cache/prometheus/`. Raises Unavailable."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("no Prometheus: it is not on the PATH, and this is no Debian to take its package from")
    say("fetching Debian's package of Prometheus (once, about 20 MB)")
    fresh = FOLDER + ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh)
    problem = download(fresh)
    if problem and os.geteuid() == 0:
        run(["apt-get", "-q", "update"], fresh)
        problem = download(fresh)
    if problem:
        raise Unavailable("no Prometheus: `apt-get download prometheus` failed: " + problem)
    package = next(name for name in os.listdir(fresh) if name.endswith(".deb"))
    problem = run(["dpkg-deb", "-x", package, "."], fresh)
    if problem:
        raise Unavailable("no Prometheus: its package could not be unpacked: " + problem)
    os.remove(os.path.join(fresh, package))
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.rename(fresh, FOLDER)
    say("unpacked into .cache/prometheus/")


def download(folder):
    """Return why the package could not be fetched; nothing if it was."""
    return run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "prometheus"], folder)


def run(command, folder):
    """Run a command; return the end of what it said if it failed, else nothing."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it took longer than {} s".format(PATIENCE)
    words = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return (words[-1] if words else "exit code {}".format(done.returncode)) if done.returncode else ""


def say(text):
    """Tell about progress, on stderr."""
    sys.stderr.write("forge: {}\n".format(text))
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        print(find())
    except Unavailable as problem:
        sys.exit(str(problem))
