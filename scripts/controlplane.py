"""A Kubernetes control plane for the tests: where its programs come from.

In this order: the folder that `KUBEBUILDER_ASSETS` names, if it has all four programs; what an earlier run built;
`go build` of `tests/controlplane/` (about ten minutes on two cores, once a version). What was built is kept outside
the repository, under the user's cache folder, and two callers at once wait for each other.

`python scripts/controlplane.py` prints a program's path, and says on stderr why there is none.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.join(ROOT, "tests", "controlplane")
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PATIENCE = 45 * 60
"""Seconds for one build, fetching included."""
KEEP = 30 * 24 * 3600
"""Seconds after its last use that what was built from other sources stays."""
TELL_EVERY = 20
"""Seconds between two lines about a build that is going on."""


class Unavailable(Exception):
    """There is no control plane to be had on this machine; the message says why, in one line."""


def find():
    """Return the words that start each part, by its name; the first call may build. Raises Unavailable."""
    given = assets()
    if given:
        return {part: [os.path.join(given, part)] for part in PARTS}
    program = built_program()
    return {part: [program, part] for part in PARTS}


def assets():
    """Return the folder in `KUBEBUILDER_ASSETS` if it has every part; nothing otherwise."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return ""
    missing = [part for part in PARTS if not os.access(os.path.join(folder, part), os.X_OK)]
    if missing:
        say("KUBEBUILDER_ASSETS has no {}: not using it".format(", ".join(missing)))
        return ""
    return folder


def built_program():
    """Return the path of the one program that is all parts, building it if need be. Raises Unavailable."""
    program = os.path.join(cache(), "controlplane-{}-{}".format(version(), fingerprint()))
    if not os.path.exists(program):
        if not shutil.which("go"):
            raise Unavailable(
                "no Kubernetes control plane: KUBEBUILDER_ASSETS names none, and there is no `go` to build one"
            )
        os.makedirs(cache(), exist_ok=True)
        with open(os.path.join(cache(), "build.lock"), "w") as lock:
            wait_for(lock)
            if not os.path.exists(program):
                build(program)
                forget_old_ones(program)
    os.utime(program)
    return program


def cache():
    """Return the folder, outside the repository, that keeps what was built."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "forge-tests")


def version():
    """Return the version of Kubernetes that the sources ask for, such as v1.36.3."""
    with open(os.path.join(SOURCE, "go.mod")) as file:
        return re.search(r"^\s*k8s\.io/kubernetes (v\S+)", file.read(), re.MULTILINE).group(1)


def fingerprint():
    """Return what the program depends on: its sources, how it is built, and for which machine."""
    whole = hashlib.sha256(repr((platform.system(), platform.machine(), link_flags())).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        with open(os.path.join(SOURCE, name), "rb") as file:
            whole.update(file.read())
    return whole.hexdigest()[:12]


def link_flags():
    """Return what the linker has to write into it: a server built without them cannot tell its version."""
    major, minor = version()[1:].split(".")[:2]
    told = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    values = ["-X k8s.io/component-base/version.{}={}".format(*pair) for pair in sorted(told.items())]
    return " ".join(["-s", "-w", *values])


def wait_for(lock):
    """Wait until nobody else builds."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("waiting for another build of the Kubernetes control plane")
        fcntl.flock(lock, fcntl.LOCK_EX)


def build(program):
    """Build the program, telling how far it is. Raises Unavailable."""
    say("building a Kubernetes {} control plane for the tests (once; about ten minutes on two cores)".format(version()))
    began = time.time()
    fresh = program + ".new"
    command = ["go", "build", "-v", "-trimpath", "-ldflags", link_flags(), "-o", fresh, "."]
    environment = dict(os.environ, CGO_ENABLED="0", GOWORK="off")
    going = subprocess.Popen(
        command, cwd=SOURCE, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, universal_newlines=True,
    )  # fmt: skip
    impatience = threading.Timer(PATIENCE, going.kill)
    impatience.start()
    try:
        last = follow(going.stderr, began)
        code = going.wait()
    finally:
        impatience.cancel()
        if going.poll() is None:
            going.kill()
            going.wait()
    if code:
        raise Unavailable("no Kubernetes control plane: `go build` failed: " + (last or "exit code {}".format(code)))
    os.rename(fresh, program)
    say("built in {:.0f} s: {}".format(time.time() - began, program))


def follow(lines, began):
    """Tell now and then how much was fetched and compiled; return the last line that was neither."""
    fetched = compiled = 0
    last, told = "", began
    for line in lines:
        word = line.strip()
        if word.startswith("go: downloading"):
            fetched += 1
        elif re.match(r"^[\w.~-]+(/[\w.~-]+)*$", word):
            compiled += 1
        elif word:
            last = word
        if time.time() - told > TELL_EVERY:
            told = time.time()
            say("  {:.0f} s: {} modules fetched, {} packages compiled".format(told - began, fetched, compiled))
    return last


def forget_old_ones(program):
    """Remove what was built from other sources and has not been used for long."""
    for name in os.listdir(cache()):
        path = os.path.join(cache(), name)
        if name.startswith("controlplane-") and path != program and time.time() - os.stat(path).st_mtime > KEEP:
            os.remove(path)


def say(text):
    """Tell about progress, on stderr."""
    sys.stderr.write("forge: {}\n".format(text))
    sys.stderr.flush()


def main():
    """Print where it is; with `--if-possible`, a machine that cannot have one is no failure."""
    try:
        print(find()["kube-apiserver"][0])
    except Unavailable as problem:
        say(str(problem))
        return 0 if "--if-possible" in sys.argv else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
