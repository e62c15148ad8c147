"""Make `.venv/` ready: `make` calls this before everything else, and it returns at once when nothing changed.

Needs nothing but a Python with `venv`. Kept in words that old Pythons can still read, so that they can say
what is wrong instead of stumbling over the syntax.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time

NEEDED = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, ".installed")
LOCKED = "requirements.lock"


class Unready(Exception):
    """The machine lacks something; the message says what, and what to do."""


def main():
    """Install what the lock file says, unless that has been done; return the exit code."""
    try:
        use_a_python_that_is_new_enough()
        os.makedirs(os.path.join(ROOT, ".cache"), exist_ok=True)
        with open(os.path.join(ROOT, ".cache", "setup.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `make -j demo test` comes here twice at once
            wanted = fingerprint()
            if read(STAMP) != wanted:
                install()
                with open(STAMP, "w") as stamp:
                    stamp.write(wanted)
    except Unready as problem:
        sys.stderr.write("error: {}\n".format(problem))
        return 1
    return 0


def use_a_python_that_is_new_enough():
    """Carry on in the newest Python on the PATH if this one is too old. Raises Unready."""
    if sys.version_info >= NEEDED:
        return
    for minor in range(19, NEEDED[1] - 1, -1):
        found = shutil.which("python3.{}".format(minor))
        if found:
            os.execv(found, [found, os.path.abspath(__file__)])
    raise Unready(
        "Forge needs Python {}.{} or newer; `python3` is {}.{}\n"
        "  hint: install a newer one, then `make demo PYTHON=/path/to/python3`".format(*NEEDED, *sys.version_info[:2])
    )


def fingerprint():
    """Return what the installation depends on: the lock, the project file, this Python, and this folder
    (a virtual environment breaks when its folder moves)."""
    whole = hashlib.sha256()
    for name in (LOCKED, "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            whole.update(file.read())
    whole.update(repr((sys.version, sys.base_prefix, ROOT)).encode())
    return whole.hexdigest()


def read(path):
    """Return the text of a file, or nothing."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def install():
    """Create the environment if need be and install exactly the locked versions, checked by their hashes."""
    began = time.time()
    if subprocess.call([PYTHON, "-c", ""], stderr=subprocess.DEVNULL) if os.path.exists(PYTHON) else True:
        shutil.rmtree(VENV, ignore_errors=True)
    pip = create()
    say("installing the locked versions into .venv/ (once; needs the network)")
    run([*pip, "install", "--require-hashes", "--no-deps", "-r", LOCKED], "could not install " + LOCKED)
    run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", "."], "could not install Forge itself")
    say("ready in {:.0f} s".format(time.time() - began))


def create():
    """Create `.venv/` if it is not there; return the command that installs into it. Raises Unready."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    own = [PYTHON, "-m", "pip", *quiet]
    if not os.path.exists(PYTHON):
        say("creating .venv/ with Python {}.{}".format(*sys.version_info[:2]))
        if subprocess.call([sys.executable, "-m", "venv", VENV], stdout=subprocess.DEVNULL) == 0:
            return own
        # Debian ships `venv` without what puts pip into it; a pip outside can still install into it.
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", "--without-pip", VENV], "could not create .venv/")
    if subprocess.call([*own, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return own
    outside = [sys.executable, "-m", "pip", "--python", PYTHON, *quiet]
    if subprocess.call([*outside, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return outside
    shutil.rmtree(VENV, ignore_errors=True)
    raise Unready("this Python has no pip\n  hint: on Debian and Ubuntu: `apt install python3-venv`")


def run(command, problem):
    """Run a command in the project. Raises Unready with `problem` if it fails."""
    if subprocess.call(command, cwd=ROOT) != 0:
        raise Unready("{}\n  hint: what went wrong stands above; `make clean` starts afresh".format(problem))


def say(text):
    """Tell about progress, on stderr: stdout belongs to what runs afterwards."""
    sys.stderr.write("forge: {}\n".format(text))
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
