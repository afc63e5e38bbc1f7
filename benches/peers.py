#!/usr/bin/env python3
"""Times ply beside buildah and docker: a rebuild in which nothing changed, and the cost of a RUN step.

    benches/peers.py --ply target/release/ply                     with every peer that is installed
    benches/peers.py --ply target/release/ply --start-dockerd     docker on a daemon of its own, stopped at the end
    benches/peers.py --ply PATH --only ply,buildah --runs 9 --json FILE

Each builder gets the same base (a root file system of Debian's static busybox, imported once), the same context
and Dockerfiles, host network, and storage of its own below one temporary directory. What is timed:

    no change   a Dockerfile of 20 steps is built, then built again and again: every step is a hit
    one RUN     `FROM base`, `RUN true`, cache off
    50 RUN      `FROM base`, 50 x `RUN true`, cache off
    per step    (50 RUN - one RUN) / 49: start-up, base and export drop out

The builders take turns in every round, so that a busy machine is busy for all, with a pause before each run, so that what
one left to the disk or a daemon to be done later is not counted for the next; figures are medians, with the least and the most. Needs Python 3.9, busybox-static, and root for dockerd (buildah and ply take any user).
"""
import argparse, io, json, os, shutil, signal, statistics, subprocess, sys, tarfile, tempfile, time

STEPS = 50


def tag(dockerfile):
    """A name a Dockerfile: a build in which nothing changed must not find its name on another image."""
    return "bench-" + os.path.basename(dockerfile).split(".")[0].lower()


class Builder:
    """One builder: its commands as argument lists. Storage is below `top`."""
    name = ""

    def __init__(self, top, program):
        self.top, self.program = top, program

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": self.top, "TMPDIR": self.top, "LANG": "C.UTF-8"}

    def run(self, argv):
        """Runs a command and returns its seconds; its output is shown when it fails."""
        start = time.perf_counter()
        r = subprocess.run(argv, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        seconds = time.perf_counter() - start
        if r.returncode:
            sys.stderr.write(r.stdout.decode("utf-8", "replace")[-4000:])
            raise SystemExit(f"{self.name}: failed with status {r.returncode}: {' '.join(argv)}")
        return seconds

    def prepare(self, rootfs):
        raise NotImplementedError

    def build(self, context, dockerfile, cold):
        raise NotImplementedError

    def version(self):
        return subprocess.run([self.program, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[0]

    def close(self):
        pass


class Ply(Builder):
    name = "ply"

    def argv(self, *args):
        return [self.program, "--store", os.path.join(self.top, "store"), *args]

    def prepare(self, rootfs):
        self.run(self.argv("import", rootfs, "bench-base"))

    def build(self, context, dockerfile, cold):
        flags = ["--no-cache"] if cold else []
        return self.argv("build", "--progress=plain", "--network=host", "--allow=network.host", *flags, "-t", tag(dockerfile), "-f", dockerfile, context)


class Buildah(Builder):
    name = "buildah"
    isolation = "oci"
    runtime = None

    def argv(self, *args):
        root, runroot = os.path.join(self.top, "root"), os.path.join(self.top, "runroot")
        return [self.program, "--root", root, "--runroot", runroot, *args]

    def prepare(self, rootfs):
        policy = os.path.join(self.top, ".config/containers/policy.json")
        os.makedirs(os.path.dirname(policy))
        with open(policy, "w") as f:
            json.dump({"default": [{"type": "insecureAcceptAnything"}]}, f)
        self.run(self.argv("from", "--name", "bench", "scratch"))
        self.run(self.argv("add", "bench", rootfs, "/"))
        self.run(self.argv("commit", "bench", "localhost/bench-base"))
        self.run(self.argv("rm", "bench"))

    def build(self, context, dockerfile, cold):
        flags = ["--no-cache"] if cold else []
        if self.runtime and self.isolation == "oci":
            flags += ["--runtime", self.runtime]
        return self.argv("bud", "--layers", "--pull-never", "--network=host", f"--isolation={self.isolation}", *flags, "-t", tag(dockerfile), "-f", dockerfile, context)

    def close(self):
        """Removes containers of failed builds and takes back the storage's bind mount onto itself."""
        subprocess.run(self.argv("rm", "--all"), env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for path in sorted(mounts_below(self.top), reverse=True):
            subprocess.run(["umount", path], stderr=subprocess.DEVNULL)


class BuildahChroot(Buildah):
    name = "buildah-chroot"
    isolation = "chroot"


class Docker(Builder):
    name = "docker"
    daemon = None

    def __init__(self, top, program, start):
        super().__init__(top, program)
        self.host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if start:
            self.start()

    def start(self):
        """Starts a daemon that shares nothing with another one; it is stopped by its own process id."""
        self.host = f"unix://{self.top}/docker.sock"
        argv = ["dockerd", "--host", self.host, "--data-root", f"{self.top}/data", "--exec-root", f"{self.top}/exec",
                "--pidfile", f"{self.top}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        self.log = open(f"{self.top}/dockerd.log", "wb")
        self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        for _ in range(300):
            if subprocess.run([self.program, "version"], env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.1)
        self.close()
        raise SystemExit("docker: the daemon did not start, the end of its log:\n" + open(f"{self.top}/dockerd.log").read()[-3000:])

    def environment(self):
        return {**super().environment(), "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1"}

    def prepare(self, rootfs):
        self.run([self.program, "import", rootfs, "bench-base"])

    def build(self, context, dockerfile, cold):
        flags = ["--no-cache"] if cold else []
        return [self.program, "build", "--progress=plain", "--network=host", *flags, "-t", tag(dockerfile), "-f", dockerfile, context]

    def version(self):
        form = "client {{.Client.Version}}, daemon {{.Server.Version}}"
        r = subprocess.run([self.program, "version", "--format", form], env=self.environment(), stdout=subprocess.PIPE, text=True)
        return "docker " + r.stdout.strip()

    def close(self):
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(60)
            self.daemon = None


def root_file_system(path):
    """Writes a tar of a busybox root file system, reproducibly."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise SystemExit("busybox is missing: apt-get install busybox-static")
    names = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        def add(name, kind, mode=0o755, link="", data=b""):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "usr", "var"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("etc/passwd", tarfile.REGTYPE, 0o644, data=b"root:x:0:0:root:/root:/bin/sh\n")
        add("etc/group", tarfile.REGTYPE, 0o644, data=b"root:x:0:\n")
        with open(busybox, "rb") as f:
            add("bin/busybox", tarfile.REGTYPE, data=f.read())
        for name in sorted(set(names) - {"busybox"}):
            add(f"bin/{name}", tarfile.SYMTYPE, 0o777, link="busybox")


def context(top, base):
    """Makes the context and returns it with its Dockerfiles."""
    dir = os.path.join(top, "context-" + base.replace("/", "-"))
    os.mkdir(dir)
    for n in range(5):
        os.makedirs(f"{dir}/src{n}")
        for m in range(40):
            with open(f"{dir}/src{n}/file{m}", "w") as f:
                f.write(f"{n} {m}\n" * 200)
    files = {}
    lines = [f"FROM {base}", "ENV A=1", "WORKDIR /work"]
    for n in range(5):
        lines += [f"COPY src{n} src{n}", f"RUN cat src{n}/* > all{n}", f"RUN test -s all{n}"]
    lines += ["LABEL a=b", "CMD [\"true\"]"]
    assert len(lines) == 20
    files["no change"] = lines
    files["one RUN"] = [f"FROM {base}", "RUN true"]
    files["50 RUN"] = [f"FROM {base}"] + ["RUN true"] * STEPS
    for name, lines in files.items():
        path = f"{dir}/{name.replace(' ', '-')}.Dockerfile"
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
        files[name] = path
    # One file that no builder counts as part of the copied trees: the Dockerfiles stand beside them.
    return dir, files


def mounts_below(top):
    with open("/proc/self/mountinfo") as f:
        return [l.split()[4] for l in f if l.split()[4].startswith(top + "/")]


def report(builders, times, rounds):
    """Returns the figures as a table and as JSON."""
    rows, data = [], {}
    for b in builders:
        t = times[b.name]
        median = {k: statistics.median(v) for k, v in t.items()}
        median["per step"] = statistics.median([(many - one) / (STEPS - 1) for many, one in zip(t["50 RUN"], t["one RUN"])])
        data[b.name] = {"version": b.version(), "median": median, "runs": t}
    names = ["no change", "one RUN", "50 RUN", "per step"]
    rows.append(["builder", *names, "times ply: no change", "times ply: per step"])
    for b in builders:
        median, t = data[b.name]["median"], data[b.name]["runs"]
        cells = [f"{median[n]:.3f} s ({min(t[n]):.3f}-{max(t[n]):.3f})" for n in names[:3]] + [f"{median['per step'] * 1000:.1f} ms"]
        for n in ("no change", "per step"):
            ply = data.get("ply", {}).get("median", {}).get(n)
            cells.append(f"{median[n] / ply:.1f}" if ply and ply > 0 else "-")
        rows.append([b.name, *cells])
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(r, widths)) + " |" for r in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    versions = [f"{n}: {d['version']}" for n, d in data.items()]
    return "\n".join(lines + [f"medians of {rounds} interleaved rounds (least-most); {'; '.join(versions)}"]), data


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ply", help="the ply program")
    ap.add_argument("--docker", default="/usr/bin/docker" if os.path.exists("/usr/bin/docker") else shutil.which("docker"), help="the docker program, one whose `docker build` has BuildKit [default: the distribution's]")
    ap.add_argument("--buildah-runtime", default=shutil.which("runc"), help="the OCI runtime for buildah [default: runc, as docker has]")
    ap.add_argument("--start-dockerd", action="store_true", help="start a daemon on a socket and data of its own")
    ap.add_argument("--only", default="ply,buildah,buildah-chroot,docker", help="which builders, by name")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--pause", type=float, default=1.0, metavar="SECONDS", help="before each run [1]")
    ap.add_argument("--json", help="write all times to this file")
    args = ap.parse_args()
    only = args.only.split(",")
    Buildah.runtime = args.buildah_runtime
    top = tempfile.mkdtemp(prefix="peers-", dir=os.environ.get("TMPDIR"))
    builders = []
    try:
        def place(name):
            os.mkdir(f"{top}/{name}")
            return f"{top}/{name}"
        if "ply" in only and args.ply:
            builders.append(Ply(place("ply"), os.path.abspath(args.ply)))
        for kind in (Buildah, BuildahChroot):
            if kind.name in only and shutil.which("buildah"):
                builders.append(kind(place(kind.name), "buildah"))
        if "docker" in only and args.docker:
            builders.append(Docker(place("docker"), args.docker, args.start_dockerd))
        if not builders:
            raise SystemExit("no builder to time: give --ply, install buildah or docker.io")
        rootfs = f"{top}/rootfs.tar"
        root_file_system(rootfs)
        contexts = {base: context(top, base) for base in ("bench-base", "localhost/bench-base")}
        plans = {}
        for b in builders:
            b.prepare(rootfs)
            dir, files = contexts["localhost/bench-base" if isinstance(b, Buildah) else "bench-base"]
            plans[b.name] = [(n, b.build(dir, path, n != "no change")) for n, path in files.items()]
            for _, argv in plans[b.name]:
                b.run(argv)  # fills the cache, warms the machine
        times = {b.name: {n: [] for n, _ in plans[b.name]} for b in builders}
        for n in range(args.runs):
            for b in builders[n % len(builders):] + builders[:n % len(builders)]:
                for what, argv in plans[b.name]:
                    time.sleep(args.pause)
                    times[b.name][what].append(b.run(argv))
            print(f"round {n + 1} of {args.runs}", file=sys.stderr, flush=True)
        text, data = report(builders, times, args.runs)
        print(text)
        if args.json:
            with open(args.json, "w") as f:
                json.dump(data, f, indent=1)
    finally:
        for b in builders:
            b.close()
        # Never delete through a mount: what a builder left mounted is told and kept.
        left = mounts_below(top)
        if left:
            print("kept, since these are still mounted: " + " ".join(left), file=sys.stderr)
        else:
            shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
