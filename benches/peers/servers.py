"""The servers that a run needs: a loopback registry, and builders' daemons. All are stopped by their own process ids.

None shares anything with a server of the machine: sockets, data and configuration are below the directory given.
"""
import os, shutil, socket, subprocess, time
from measure import stop_process


class Failed(Exception):
    """A preparation did not work: a server did not start, a program that isn't measured failed."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(argv, log_path, ready, environment=None, seconds=30):
    """Starts a server and waits until `ready()`; shows the end of its log when it isn't."""
    with open(log_path, "wb") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return child
        if child.poll() is not None:
            break
        time.sleep(0.1)
    stop_process(child)
    with open(log_path, errors="replace") as f:
        raise Failed(f"{argv[0]} did not start, the end of its log:\n{f.read()[-3000:]}")


class Registry:
    """Debian's docker-registry on a free loopback port."""

    def __init__(self, top, program):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        os.makedirs(f"{top}/data")
        with open(f"{top}/config.yml", "w") as f:
            f.write(f"version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {top}/data\n"
                    f"http:\n  addr: {self.address}\n")
        self.process = start([program, "serve", f"{top}/config.yml"], f"{top}/log", self.answers)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def close(self):
        stop_process(self.process)


def mounts_below(top):
    """Returns the mount points below a directory, the deepest first."""
    with open("/proc/self/mountinfo") as f:
        points = [line.split()[4] for line in f]
    return sorted((p for p in points if p.startswith(top + "/")), reverse=True)


def unmount_below(top):
    """Takes back what a builder left mounted below its own directory; returns what stays."""
    for point in mounts_below(top):
        subprocess.run(["umount", point], stderr=subprocess.DEVNULL)
    return mounts_below(top)


def remove(top):
    """Removes a builder's files. A user's builders leave files of the user's subordinate ids, which only a user namespace reaches."""
    if mounts_below(top):
        raise Failed(f"{top} has mounts below it")
    if os.geteuid() == 0:
        shutil.rmtree(top)
    else:
        subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--one-file-system", top], check=True)
