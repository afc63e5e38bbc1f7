"""Runs commands and says what they took: wall seconds, CPU seconds, peak memory, and other programs' CPU meanwhile.

What is counted, and how:

    wall     of each command that makes up a run, from asking the kernel to start it until it has ended; not what this script
             does before, in between and after.
    CPU      user and system time of the commands and all their descendants (those reaped: getrusage; those that live
             on: /proc/PID/stat) and of the builder's daemons and all their descendants, dead ones by their parents'
             cutime and cstime. This process is a subreaper, so that a descendant that lost its parent stays countable.
             Not counted: kernel threads (write-back, overlay's work queues), a loopback registry, and what a daemon does
             after the command has ended. Live processes are counted in clock ticks of 10 ms.
    memory   the largest sum of Pss (anonymous, shared and mapped pages, shared ones divided among their sharers) over the
             same processes, looked at every few milliseconds. The page cache isn't counted, mapped files are. Looking costs
             time, so memory is taken in a round of its own whose times are thrown away. A daemon's memory is what it is after
             all that it did before, as on a build machine. A command that lives shorter than a look: the kernel's mark of
             the largest resident set of one of its processes stands in where it is larger (it counts shared pages in full).
    other    CPU of all other user processes, and what the hypervisor took (steal): a run with too much of it is disturbed.
             Other programs' disk traffic can't be told apart from the builder's own, and isn't looked at.

The thing to know: a process is counted by its ancestors, not by its cgroup, since runc moves a RUN step's processes to
cgroups of its own choosing, while their time always ends with whoever waits for them. So no cgroup version is needed, nor root.
"""
import ctypes, os, resource, signal, subprocess, threading, time
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36

# A run is disturbed when others took more than this share of its wall time on one core, and more than two ticks.
TOLERATED_SHARE = 0.05
TOLERATED_SECONDS = 0.02


class CommandFailed(Exception):
    """A command ended with another status than 0; the text has the end of its output."""


@dataclass
class Process:
    parent: int
    ticks: int  # user and system time, with that of children that were waited for
    kernel: bool


@dataclass
class Sample:
    """One run. `memory` (bytes) is None where it wasn't looked at."""
    seconds: float
    cpu: float
    other: float
    memory: "int | None" = None

    def disturbed(self, tolerated_share=TOLERATED_SHARE):
        return self.other > TOLERATED_SECONDS and self.other > tolerated_share * self.seconds


def become_subreaper():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parse_stat(text):
    """Reads /proc/PID/stat; the name may have blanks and parentheses, so fields are counted from its end."""
    fields = text[text.rindex(")") + 2:].split()
    parent, flags = int(fields[1]), int(fields[6])
    return Process(parent, sum(int(t) for t in fields[11:15]), bool(flags & 0x00200000))  # PF_KTHREAD


def processes():
    """Returns all processes by their ids."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as f:
                    table[int(name)] = parse_stat(f.read())
            except (OSError, ValueError):
                continue  # it ended meanwhile
    return table


def steal_seconds():
    with open("/proc/stat") as f:
        fields = f.readline().split()
    return int(fields[8]) / TICK if len(fields) > 8 else 0.0


def top_ancestor(table, pid, stops):
    """Returns the nearest of `stops` among `pid` and its ancestors, or None."""
    while pid in table:
        if pid in stops:
            return pid
        pid = table[pid].parent
    return None


def divide(table, me, own_daemons, other_daemons, servers):
    """Divides the processes between the builder at work and the others: (its process ids, the others').

    `me` and its descendants are the builder's, without `me` itself, other builders' daemons and `servers` (a registry) with
    their descendants. An idle daemon of another builder counts among the others: it may disturb. `servers` count nowhere.
    """
    stops = {me, *own_daemons, *other_daemons, *servers}
    mine, others = [], []
    for pid, p in table.items():
        if p.kernel or pid == me:
            continue
        top = top_ancestor(table, pid, stops)
        if top is None or top in other_daemons:
            others.append(pid)
        elif top not in servers:
            mine.append(pid)
    return mine, others


def pss(pid):
    """Returns a process's proportional set size in bytes; 0 where it ended or may not be looked at."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def reap():
    """Waits for orphans that ended, so that getrusage has their time. Only for moments when no command runs, for it would take
    a command's status away; daemons don't end meanwhile, and if one does, its Popen says 0."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Measures the runs of builders. `servers` are process ids that belong to nobody."""

    def __init__(self, log_path, interval=0.01):
        self.log_path, self.interval = log_path, interval
        self.daemons = {}  # builder's name -> process ids
        self.servers = set()
        self.marks = Marks(log_path + ".mark")

    def ends(self, name):
        others = {p for n, pids in self.daemons.items() if n != name for p in pids}
        return set(self.daemons.get(name, ())), others

    def clocks(self, name):
        """Returns (CPU seconds so far of the builder, of others): only differences mean something."""
        own, others = self.ends(name)
        table = processes()
        mine, strangers = divide(table, os.getpid(), own, others, self.servers)
        ticks = [sum(table[p].ticks for p in group) / TICK for group in (mine, strangers)]
        return ticks[0] + children_seconds(), ticks[1] + steal_seconds()

    def run(self, name, commands, environment, with_memory=False, timeout=1800):
        """Runs commands one after another and returns their sample; raises CommandFailed."""
        reap()
        before = self.clocks(name)
        watch = MemoryWatch(self, name) if with_memory else None
        peak = None
        seconds = 0.0
        try:
            for argv in commands:
                seconds += self.command(name, self.marks.wrap(argv) if watch else argv, environment, timeout)
        finally:
            if watch:
                peak = max(watch.stop(), self.marks.take())
        reap()
        after = self.clocks(name)
        return Sample(seconds, max(0.0, after[0] - before[0]), max(0.0, after[1] - before[1]), peak)

    def command(self, name, argv, environment, timeout):
        """Runs one command and returns its seconds; raises CommandFailed with the end of its output."""
        with open(self.log_path, "w+b") as log, open(os.devnull, "rb") as nothing:
            child = []

            def kill():
                for pid in child:
                    os.kill(pid, signal.SIGKILL)

            timer = threading.Timer(timeout, kill)
            timer.start()
            files = [(os.POSIX_SPAWN_DUP2, f.fileno(), to) for f, to in ((nothing, 0), (log, 1), (log, 2))]
            try:
                start = time.perf_counter()
                # Not by subprocess: what that does of its own is as long as a short command.
                child.append(os.posix_spawnp(argv[0], argv, environment, file_actions=files, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]))
                _, status = os.waitpid(child[0], 0)
                seconds = time.perf_counter() - start
                child.clear()
            except BaseException:
                kill()
                for pid in child:
                    os.waitpid(pid, 0)
                raise
            finally:
                timer.cancel()
            if code := os.waitstatus_to_exitcode(status):
                log.seek(0)
                tail = log.read()[-3000:].decode("utf-8", "replace")
                raise CommandFailed(f"{name}: failed with status {code}: {' '.join(argv)}\n{tail}")
            return seconds


class Marks:
    """The kernel's mark of the largest resident set of a command's processes, by busybox's `time`.

    Not by our own wait: exec(2) keeps the mark of the process that forked, so a command would never seem smaller than Python.
    """

    def __init__(self, path):
        self.path = path
        self.largest, self.unit = 0, None

    def wrap(self, argv):
        self.read()
        return ["busybox", "time", "-f", "%M", "-o", self.path, *argv]

    def read(self):
        """Takes in the mark of the command that ended last."""
        try:
            with open(self.path) as f:
                lines = f.read().split()
            os.remove(self.path)
        except OSError:
            return
        if lines and lines[-1].isdigit():
            self.largest = max(self.largest, int(lines[-1]) * 1024 // self.divisor())

    def divisor(self):
        """Some busyboxes take the kernel's KiB for pages and say four times too much: a process that tells its own mark shows it."""
        if self.unit is None:
            probe = subprocess.run(["busybox", "time", "-f", "%M", "busybox", "grep", "VmHWM", "/proc/self/status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.unit = max(1, round(int(probe.stderr.split()[-1]) / int(probe.stdout.split()[1])))
        return self.unit

    def take(self):
        self.read()
        largest, self.largest = self.largest, 0
        return largest


class MemoryWatch:
    """Looks at the memory of a builder's processes in a thread until it is stopped."""

    def __init__(self, meter, name):
        self.meter, self.name = meter, name
        self.peak, self.ended = 0, threading.Event()
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        own, others = self.meter.ends(self.name)
        while True:
            mine, _ = divide(processes(), os.getpid(), own, others, self.meter.servers)
            self.peak = max(self.peak, sum(pss(p) for p in mine))
            if self.ended.wait(self.meter.interval):
                return

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.peak


def stop_process(child, seconds=60):
    """Ends a process that we started: asked first, then made to."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
