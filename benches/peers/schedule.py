"""Runs the groups in rounds: in each phase of a round every builder has its turn, and each round begins with another one.

A round more is made for those who lack undisturbed runs, at most as many as were asked for; one round at the end is for memory.
A builder that fails is left out of the row from then on, and the row says so; the others go on.
"""
import os, shutil, sys, time
from measure import CommandFailed
from table import Result


def say(text):
    print(text, file=sys.stderr, flush=True)


def rotate(items, n):
    items = list(items)
    n %= len(items) or 1
    return items[n:] + items[:n]


class Schedule:
    def __init__(self, meter, builders, options):
        """`options`: runs, extra, pause, settle, memory, tolerate, rows (only these are wanted; None: all)."""
        self.meter, self.builders, self.options = meter, builders, options
        self.rows = {}  # row -> who -> Result
        self.trouble = []  # what went wrong, in words

    def wants(self, row):
        return self.options.rows is None or row in self.options.rows

    def concerns(self, group):
        """Whether a group has anything to do: the peak memory is that of all groups."""
        return self.timed(group) or (self.options.memory and self.wants("memory"))

    def timed(self, group):
        return any(self.wants(row) for row in group.rows)

    def group(self, group):
        """Runs all rounds of a group."""
        o = self.options
        if group.warm:
            self.round(group, -1, lambda r: False)
        n = 0
        while self.timed(group) and (n < o.runs or (n < o.runs + o.extra and self.lacking(group))):
            self.round(group, n, lambda r: n < o.runs or len(r.seconds) < o.runs)
            self.tidy(group, last=False)
            n += 1
            say(f"{', '.join(group.rows)}: round {n} done")
        if o.memory:
            self.round(group, n, lambda r: True, with_memory=True)
        self.tidy(group, last=True)

    def lacking(self, group):
        results = [r for row in group.rows for r in self.rows.get(row, {}).values()]
        return any(len(r.seconds) < self.options.runs and not r.failed for r in results)

    def tidy(self, group, last):
        """Forgets what the rounds left, at the end or where it is much, and lets the disk come to rest after."""
        round_bytes = group.bytes_a_builder * group.bench.scale * len(self.builders)
        crowded = shutil.disk_usage(group.bench.top).free < 3 * round_bytes
        if not (last or group.reset_each_round or crowded):
            return
        group.end()
        for b in self.builders:
            b.reset()
            self.meter.daemons[b.name] = b.daemon_pids()
        self.rest(round_bytes)

    def rest(self, size):
        os.sync()
        if size > 256e6:
            say(f"waiting {self.options.settle:g} s after a big delete")
            time.sleep(self.options.settle)

    def round(self, group, n, counts, with_memory=False):
        """Runs one round. `counts(result)`: whether the sample is kept; the work is done anyway, for later phases stand on it."""
        phases = group.begin(n)
        wanted = [with_memory or any(self.wants(row) for row in phase.rows or (phase.row,)) for phase in phases]
        for at, phase in enumerate(phases):
            if not (wanted[at] if group.independent else any(wanted[at:])):
                continue
            phase.once()
            if not with_memory:
                self.pause()
            workers = [(b, None) for b in self.builders] + [(None, name) for name in phase.baselines]
            for builder, baseline in rotate(workers, n):
                who = baseline or builder.name
                result = self.rows.setdefault(phase.row, {}).setdefault(who, Result(who, baseline=bool(baseline), unlike="" if baseline else builder.unlike.get(phase.row, "")))
                if result.failed or (with_memory and baseline):
                    continue
                try:
                    sample = self.turn(phase, builder, baseline, with_memory, group.bench.environment)
                except CommandFailed as e:
                    result.failed = str(e)
                    self.trouble.append(f"{phase.row}: {e}")
                    say(self.trouble[-1])
                    continue
                if sample and counts(result):
                    result.add(sample, self.options.tolerate)
                phase.after(who)

    def pause(self):
        os.sync()  # what one left to be written later must not be written while the next one works
        time.sleep(self.options.pause)

    def turn(self, phase, builder, baseline, with_memory, environment):
        """Runs one builder's or baseline's commands; None where it has none for this."""
        if builder:
            builder.before()
            commands, environment = phase.commands(builder), builder.environment()
        else:
            commands = phase.baselines[baseline]()
        if commands is None:
            return None
        self.pause()
        return self.meter.run(baseline or builder.name, commands, environment, with_memory)

    def finished(self, order):
        """Returns the wanted rows in the order given, without results that say nothing."""
        rows = {}
        for row in order:
            results = {w: r for w, r in self.rows.get(row, {}).items() if r.seconds or r.memory or r.failed or r.disturbed}
            if results and self.wants(row):
                ply_first = sorted(results.values(), key=lambda r: (r.baseline, r.who != "ply", r.median or float("inf")))
                rows[row] = {r.who: r for r in ply_first}
        return rows
