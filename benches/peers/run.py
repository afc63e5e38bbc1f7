#!/usr/bin/env python3
"""Times ply beside docker (BuildKit), buildkitd, buildah and kaniko: whatever of them is installed.

    benches/peers/run.py --ply target/release/ply
    benches/peers/run.py --ply PATH --peer buildctl=PATH --peer buildkitd=PATH --peer kaniko=PATH     programs not on the PATH
    benches/peers/run.py --ply PATH --rows nochange,run50,step --only ply,docker                     some rows, some builders
    benches/peers/run.py --ply PATH --scale 0.02 --runs 1 --pause 0 --settle 0                       a quick trial
    benches/peers/run.py --self-test                                                                this script's own logic

All builders get the same base (busybox and 6,000 files of 75 MB, from a registry on loopback), the same contexts and Dockerfiles, host
network, storage of their own below one temporary directory (TMPDIR), and warm page caches. They take turns in every phase of
every round, so that a busy machine is busy for all, after a pause and a sync. A run during which other programs used a
processor is dropped, counted, and made up for by another round. Figures are medians. CPU and memory include daemons;
measure.py says what exactly is counted. What a row compares: workloads.py.

Full size takes about an hour with all builders on two cores, and some 30 GB of disk. Needs Python 3.9, busybox-static, skopeo and
docker-registry; pigz for one baseline; root for docker, buildkit and kaniko (the others take any user).
"""
import argparse, json, os, platform, shutil, signal, sys, tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
import builders as kinds
import data, workloads
from measure import TOLERATED_SHARE, Meter, become_subreaper
from schedule import Schedule, say
from servers import Failed, Registry, mounts_below, remove
from table import derive_memory, derive_step, judge, render

PROGRAMS = {"docker": "docker", "dockerd": "dockerd", "buildctl": "buildctl", "buildkitd": "buildkitd", "buildah": "buildah", "kaniko": "/kaniko/executor",
            "registry": "docker-registry", "skopeo": "skopeo", "pigz": "pigz"}


def arguments():
    rows = ", ".join(workloads.ABOUT)
    names = ",".join(k.name for k in kinds.KINDS)
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ply", help="the ply program")
    ap.add_argument("--peer", action="append", default=[], metavar="PROGRAM=PATH", help="where a program is: " + ", ".join(PROGRAMS))
    ap.add_argument("--only", default=names, metavar="BUILDERS", help=f"which builders [{names}]; buildah-chroot takes part in rows with RUN only")
    ap.add_argument("--rows", metavar="ROWS", help=f"which rows [all]: {rows}; memory looks at all of them, and times those named beside it")
    ap.add_argument("--runs", type=int, default=5, help="undisturbed runs wanted of each [5]")
    ap.add_argument("--extra", type=int, help="rounds more, at most, to make up for disturbed runs [as many as --runs]")
    ap.add_argument("--scale", type=float, default=1.0, help="size of the data and of the busy loops [1]; the figures mean something at 1 only")
    ap.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="before each run [1]")
    ap.add_argument("--settle", type=float, default=60.0, metavar="SECONDS", help="after a big delete [60]")
    ap.add_argument("--tolerate", type=float, default=TOLERATED_SHARE, metavar="SHARE", help=f"drop runs in which other programs took more than this share of a processor [{TOLERATED_SHARE}]; inf: none")
    ap.add_argument("--no-memory", dest="memory", action="store_false", help="leave out the rounds that look at memory")
    ap.add_argument("--buildah-runtime", default=shutil.which("runc"), help="the OCI runtime for buildah [runc, as docker has]")
    ap.add_argument("--json", metavar="FILE", help="write all samples and verdicts to this file")
    ap.add_argument("--self-test", action="store_true", help="test this script's own logic and exit")
    args = ap.parse_args()
    args.extra = args.runs if args.extra is None else args.extra
    args.rows = args.rows and args.rows.split(",")
    unknown = set(args.rows or ()) - set(workloads.ABOUT) | set(args.only.split(",")) - set(names.split(","))
    if unknown:
        ap.error(f"unknown: {', '.join(sorted(unknown))}")
    return args


def find_programs(args):
    """Returns where each program is, None for those that aren't installed."""
    paths = dict(PROGRAMS)
    # The distribution's docker comes first: another one may be a client without BuildKit, or not docker at all.
    paths["docker"] = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
    for text in args.peer:
        name, _, path = text.partition("=")
        if name not in PROGRAMS or not os.access(path, os.X_OK):
            raise SystemExit(f"--peer {text}: expected PROGRAM=PATH with one of {', '.join(PROGRAMS)} and a program that is there")
        paths[name] = os.path.abspath(path)
    found = {name: shutil.which(path) for name, path in paths.items()}
    for name, package in (("registry", "docker-registry"), ("skopeo", "skopeo")):
        if not found[name]:
            raise SystemExit(f"{PROGRAMS[name]} is missing: apt-get install {package}")
    found["ply"] = args.ply and os.path.abspath(args.ply)
    return found


def choose(args, found):
    """Returns the builders that can take part, as (class, program), and says why others don't."""
    kinds.Docker.daemon_program, kinds.BuildKit.daemon_program, kinds.Buildah.runtime = found["dockerd"], found["buildkitd"], args.buildah_runtime
    needs = {"ply": ["ply"], "docker": ["docker", "dockerd"], "buildkit": ["buildctl", "buildkitd"], "buildah": ["buildah"], "buildah-chroot": ["buildah"], "kaniko": ["kaniko"]}
    chosen = []
    for kind in kinds.KINDS:
        missing = [n for n in needs[kind.name] if not found[n]]
        if kind.name not in args.only.split(","):
            continue
        if missing:
            say(f"{kind.name} is left out: {', '.join(missing)} not found")
        elif os.geteuid() and kind in (kinds.Docker, kinds.BuildKit, kinds.Kaniko):
            say(f"{kind.name} is left out: it needs root")
        else:
            chosen.append((kind, found[needs[kind.name][0]]))
    if not chosen:
        raise Failed("no builder to time: give --ply or install a peer")
    return chosen


def measure(args, found, top, builders):
    """Runs everything; `builders` is filled as they start, so that the caller can stop them. What goes wrong in a group, or a
    signal, ends that group or the run, but what was measured is reported."""
    environment = {"PATH": os.environ["PATH"], "HOME": top, "TMPDIR": top, "LANG": "C.UTF-8"}
    meter = Meter(f"{top}/log")
    registry = Registry(f"{top}/registry", found["registry"])
    try:
        meter.servers = {registry.process.pid}
        bench = workloads.Bench(f"{top}/data", registry.address, found, args.scale, os.cpu_count() or 1, environment)
        os.makedirs(bench.top)
        base = make_base(bench, found["skopeo"])
        for kind, program in choose(args, found):
            builder = kind(f"{top}/{kind.name}", program, registry.address, base)
            builders.append(builder)
            builder.prepare()
            meter.daemons[builder.name] = builder.daemon_pids()
        versions = {b.name: b.version() for b in builders}
        schedule = Schedule(meter, builders, args)
        groups = [g(bench) for g in workloads.GROUPS if schedule.concerns(g)]
        check_disk(top, groups, len(builders))
        try:
            for group in groups:
                schedule.builders = [b for b in builders if b.name != "buildah-chroot" or isinstance(group, (workloads.Steps, workloads.Stages))]
                try:
                    schedule.group(group)
                except (Failed, OSError) as e:
                    schedule.trouble.append(f"{', '.join(group.rows)}: given up: {e}")
                    say(schedule.trouble[-1])
        except (KeyboardInterrupt, SystemExit):
            schedule.trouble.append("stopped; the table has what was measured till then")
            say(schedule.trouble[-1])
    finally:
        registry.close()
    return schedule, bench, versions


def check_disk(top, groups, builders):
    """Says early what would go wrong late."""
    need = max((g.bytes_a_builder * g.bench.scale * builders for g in groups), default=0)
    free = shutil.disk_usage(top).free
    if free < need:
        raise Failed(f"{need / 1e9:.0f} GB of disk are needed below {top} (TMPDIR), {free / 1e9:.0f} GB are free: choose --rows, --only or --scale")


def make_base(bench, skopeo):
    """Puts the common base into the registry; returns its name and digest there. As large as a distribution's slim image, since
    a builder that looks at the whole file system after each step would seem faster than it is on busybox alone."""
    name = f"{bench.registry}/bench/base:1"
    shell, rest = f"{bench.top}/shell.tar", f"{bench.top}/rest.tar"
    data.busybox_layer(shell)
    data.tree_layer(rest, "base", "usr/share", bench.scaled(6000), 12_500)
    data.layout(f"{bench.top}/base", [shell, rest])
    return name, data.send(skopeo, f"{bench.top}/base", name, bench.environment)


def report(args, schedule, bench, versions):
    """Prints the table, writes the JSON, and returns the exit status: 1 where something went wrong, not where a figure isn't met."""
    schedule.rows["step"] = derive_step(schedule.rows.get("run1", {}), schedule.rows.get("run50", {}), 50)
    schedule.rows["memory"] = derive_memory(schedule.rows)
    rows = schedule.finished(workloads.ABOUT)
    print(render(workloads.ABOUT, workloads.WANTED, rows, bench.sizes))
    print(f"{args.runs} interleaved rounds, scale {args.scale:g}, {bench.cores} processors, Linux {platform.release()}; " + "; ".join(f"{n}: {v}" for n, v in versions.items()))
    if args.json:
        verdicts = [{"row": row, **vars(v)} for row, v in judge(workloads.WANTED, rows, bench.sizes)]
        sizes = [{"row": row, "who": who, "bytes": n} for (row, who), n in bench.sizes.items()]
        with open(args.json, "w") as f:
            json.dump({"scale": args.scale, "versions": versions, "sizes": sizes, "verdicts": verdicts,
                       "rows": {row: {w: vars(r) for w, r in results.items()} for row, results in rows.items()}, "trouble": schedule.trouble}, f, indent=1)
    return 1 if schedule.trouble else 0


def main():
    args = arguments()
    if args.self_test:
        import unittest
        suite = unittest.defaultTestLoader.discover(os.path.dirname(os.path.abspath(__file__)), "test_*.py")
        return not unittest.TextTestRunner().run(suite).wasSuccessful()
    found = find_programs(args)
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    top = tempfile.mkdtemp(prefix="peers-", dir=os.environ.get("TMPDIR"))
    builders = []
    try:
        return report(args, *measure(args, found, top, builders))
    except Failed as e:
        say(str(e))
        return 1
    finally:
        for b in builders:
            b.close()
        for b in builders:
            kinds.unmount_below(b.top)
        # Never delete through a mount: what is still mounted is told and kept.
        left = mounts_below(top)
        if left:
            say("kept, since these are still mounted: " + " ".join(left))
        else:
            remove(top)


if __name__ == "__main__":
    sys.exit(main())
