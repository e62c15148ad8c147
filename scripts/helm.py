"""A helm for the tests: the one on the PATH, else built from its Go module, kept beside the tests' control plane.

`python scripts/helm.py` prints the program's path; `--if-possible` says why there is none, and ends well all the same.
Two callers at once wait for each other.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.join(ROOT, "tests", "helm")
COMMAND = "helm.sh/helm/v3/cmd/helm"
PATIENCE = 30 * 60
"""Seconds for one build, fetching included."""


class Unavailable(Exception):
    """There is no helm to be had on this machine; the message says why, in one line."""


def find():
    """Return the path of the program; the first call may build. Raises Unavailable."""
    found = shutil.which("helm")
    if found:
        return found
    program = os.path.join(cache(), "helm-{}".format(fingerprint()), "helm")
    if not os.path.exists(program):
        if not shutil.which("go"):
            raise Unavailable("no helm: it is not on the PATH, and there is no `go` to build one")
        os.makedirs(os.path.dirname(program), exist_ok=True)
        with open(os.path.join(cache(), "helm.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(program):
                build(program)
    return program


def cache():
    """Return the folder, outside the repository, that keeps what was built."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "forge-tests")


def fingerprint():
    """Return what the program depends on."""
    whole = hashlib.sha256(repr((platform.system(), platform.machine())).encode())
    for name in ("go.mod", "go.sum"):
        with open(os.path.join(SOURCE, name), "rb") as file:
            whole.update(file.read())
    return whole.hexdigest()[:12]


def build(program):
    """Build the program. Raises Unavailable."""
    say("building helm for the tests (once; about two minutes on two cores)")
    began, fresh = time.time(), program + ".new"
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", fresh, COMMAND]
    environment = dict(os.environ, CGO_ENABLED="0", GOWORK="off")
    try:
        done = subprocess.run(
            command, cwd=SOURCE, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable("no helm: `go build` took longer than {} s".format(PATIENCE)) from None
    if done.returncode:
        words = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise Unavailable("no helm: `go build` failed: " + (words[-1] if words else str(done.returncode)))
    os.rename(fresh, program)
    say("built in {:.0f} s: {}".format(time.time() - began, program))


def say(text):
    """Tell about progress, on stderr."""
    sys.stderr.write("forge: {}\n".format(text))
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        print(find())
    except Unavailable as problem:
        if "--if-possible" not in sys.argv:
            sys.exit(str(problem))
        say(str(problem))
