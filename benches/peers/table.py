"""From samples to a table: medians, ratios, and whether what is wanted is met. Pure: no clock, no files, no processes.

`Result` is what one builder or baseline did for one row. Ratios are of medians. The best peer is the fastest of those that did
the row's own work: a result with `unlike` (a builder that also does something else there) and baselines don't count as peers.
"""
import statistics
from dataclasses import dataclass, field


@dataclass
class Result:
    who: str
    seconds: list = field(default_factory=list)
    cpu: list = field(default_factory=list)
    memory: list = field(default_factory=list)  # bytes
    dropped: int = 0
    disturbed: list = field(default_factory=list)  # seconds of dropped runs, shown where there is no other
    baseline: bool = False
    unlike: str = ""
    failed: str = ""

    def add(self, sample, tolerated_share):
        """Takes a sample in: its memory if that was looked at (its time is then worth nothing), else its time."""
        if sample.memory is not None:
            self.memory.append(sample.memory)
        elif sample.disturbed(tolerated_share):
            self.dropped += 1
            self.disturbed.append(sample.seconds)
        else:
            self.seconds.append(sample.seconds)
            self.cpu.append(sample.cpu)

    @property
    def median(self):
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def peak(self):
        return max(self.memory) if self.memory else None


@dataclass(frozen=True)
class Verdict:
    """`met` is None where it can't be said: a side of the comparison is missing."""
    wanted: str
    got: str
    met: "bool | None"


@dataclass(frozen=True)
class Faster:
    """At least `times` as fast as the best peer."""
    times: float

    def judge(self, results, sizes):
        wanted = f"{self.times:g} x as fast as the best peer"
        ply, best = median_of(results, "ply"), best_peer(results)
        if not ply or best is None:
            return Verdict(wanted, "-", None)
        got = best.median / ply
        return Verdict(wanted, f"{got:.2f} x ({best.who})", got >= self.times)


@dataclass(frozen=True)
class Within:
    """At most `times` a baseline's time."""
    times: float
    baseline: str

    def judge(self, results, sizes):
        wanted = f"at most {self.times:g} x the time of {self.baseline}"
        ply, other = median_of(results, "ply"), median_of(results, self.baseline)
        if not ply or not other:
            return Verdict(wanted, "-", None)
        return Verdict(wanted, f"{ply / other:.2f} x", ply / other <= self.times)


@dataclass(frozen=True)
class Below:
    """A figure of ply's own is below a limit: its median in seconds, or its peak in bytes."""
    limit: float
    unit: str

    def judge(self, results, sizes):
        wanted = f"below {amount(self.limit, self.unit)}"
        ply = results.get("ply")
        value = ply and (ply.median if self.unit == "s" else ply.peak)
        if value is None:
            return Verdict(wanted, "-", None)
        return Verdict(wanted, amount(value, self.unit), value < self.limit)


@dataclass(frozen=True)
class AsRatio:
    """What ply writes in a row is at most `times` as large as what a baseline writes there."""
    row: str
    times: float
    baseline: str

    def judge(self, results, sizes):
        wanted = f"at most {self.times:g} x the bytes of {self.baseline}"
        ply, other = sizes.get((self.row, "ply")), sizes.get((self.row, self.baseline))
        if not ply or not other:
            return Verdict(wanted, "-", None)
        return Verdict(wanted, f"{ply / other:.3f} x", ply / other <= self.times)


def amount(value, unit):
    if unit == "s":
        return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"
    return f"{value / 1e6:.0f} MB"


def median_of(results, who):
    return results[who].median if who in results else None


def best_peer(results):
    """Returns the fastest result of another builder that did the same work, or None."""
    peers = [r for r in results.values() if r.who != "ply" and not r.baseline and not r.unlike and r.median is not None]
    return min(peers, key=lambda r: r.median, default=None)


def derive_step(one, many, steps):
    """Returns the time of one step of each builder: start-up, base and export drop out. Runs are paired in their order."""
    rows = {}
    for who in one.keys() & many.keys():
        pairs = list(zip(one[who].seconds, many[who].seconds))
        cpu = list(zip(one[who].cpu, many[who].cpu))
        rows[who] = Result(who, [(b - a) / (steps - 1) for a, b in pairs], [(b - a) / (steps - 1) for a, b in cpu])
    return {who: rows[who] for who in many if who in rows}


def derive_memory(rows):
    """Returns each builder's largest peak over all rows."""
    peaks = {}
    for results in rows.values():
        for r in results.values():
            if r.memory and not r.baseline:
                peaks.setdefault(r.who, Result(r.who)).memory.append(r.peak)
    return peaks


def spread(result):
    """Returns the seconds of a result as a cell: median (least-most)."""
    if result.failed:
        return "failed"
    if not result.seconds:
        return f"all disturbed ({statistics.median(result.disturbed):.3f})" if result.disturbed else "-"
    low, high = min(result.seconds), max(result.seconds)
    digits = 4 if high < 0.1 else 3 if high < 1 else 2
    return f"{result.median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def judge(wanted, rows, sizes):
    """Returns (row, verdict) for everything that is wanted of the rows that were run."""
    return [(row, want.judge(rows[row], sizes)) for row in rows for want in wanted.get(row, ())]


def markdown(cells):
    widths = [max(len(r[i]) for r in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(r, widths)) + " |" for r in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def render(about, wanted, rows, sizes):
    """Returns the table: a line for each builder and baseline of a row, and after them what is wanted of ply and what it got."""
    verdicts = judge(wanted, rows, sizes)
    cells = [["work", "who", "seconds: median (least-most)", "times ply", "CPU s", "peak MB", "runs", "dropped", "remark"]]
    for row, results in rows.items():
        title, ply = about[row], median_of(results, "ply")
        for r in results.values():
            times = f"{r.median / ply:.2f}" if r.median is not None and ply else "-"
            cpu = f"{statistics.median(r.cpu):.3f}" if r.cpu else "-"
            memory = f"{r.peak / 1e6:.0f}" if r.peak is not None else "-"
            size = sizes.get((row, r.who))
            remark = ", ".join(filter(None, ["baseline" if r.baseline else "", size and f"{size / 1e6:.1f} MB", r.unlike and f"not compared: {r.unlike}"]))
            cells.append([title, r.who, spread(r), times, cpu, memory, str(len(r.seconds)), str(r.dropped), remark])
            title = ""
        for _, v in (v for v in verdicts if v[0] == row):
            cells.append(["", "= wanted", v.wanted, v.got, "", "", "", "", {True: "MET", False: "NOT MET", None: "can't be said"}[v.met]])
    met = sum(v.met is True for _, v in verdicts)
    return f"{markdown(cells)}\n{met} of {len(verdicts)} wanted figures met"
