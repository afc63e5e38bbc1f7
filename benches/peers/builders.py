"""The builders: each as the command lines that do the same work with it. Nothing is run or timed here but preparations.

A method returns a list of commands (run one after another as one measured run), or None where the builder can't do that work.
`unlike` tells of rows where a builder does other work than the row says: such figures are shown with the reason, and are never
the "best" that ply is compared with.

All state of a builder is below `top`, HOME and TMPDIR too, and `reset` begins anew: no builder finds what another run left.
"""
import json, os, shutil, subprocess
from dataclasses import dataclass, replace
from measure import stop_process
from servers import Failed, remove, start, unmount_below

STORE, NOTHING = "store", "nothing"  # where a build's result goes: under `name` into the builder's own store, or nowhere


@dataclass(frozen=True)
class Build:
    """A build that all builders can be asked for. `lines`: the Dockerfile, with `{base}` for the common base."""
    title: str
    lines: tuple
    context: str
    cold: bool = False
    output: str = STORE
    jobs: int = 2

    @property
    def name(self):
        """A name a build: one in which nothing changed must not find its name on another image."""
        return "bench-" + self.title


class Builder:
    name = ""
    unlike = {}
    daemon = None

    def __init__(self, top, program, registry, base):
        """`base`: the common base's name in the registry and its digest."""
        self.top, self.program, self.registry, self.base = top, program, registry, base
        os.makedirs(top)

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": self.top, "TMPDIR": self.top, "LANG": "C.UTF-8"}

    def call(self, *argv):
        """Runs a command that isn't measured and returns its standard output; its words are shown when it fails."""
        r = subprocess.run(argv, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if r.returncode:
            raise Failed(f"{self.name}: failed with status {r.returncode}: {' '.join(argv)}\n{r.stdout[-1000:]}{r.stderr[-3000:]}")
        return r.stdout

    def dockerfile(self, build):
        """Writes the Dockerfile outside the context, which stays as it is, and returns (its directory, its path)."""
        folder = os.path.join(self.top, "files")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, build.title + ".Dockerfile")
        text = "\n".join(build.lines).replace("{base}", self.base_reference()) + "\n"
        if not os.path.exists(path) or open(path).read() != text:
            with open(path, "w") as f:
                f.write(text)
        return folder, path

    def base_reference(self):
        return self.base[0]

    def prepare(self):
        """Starts what is needed and brings the base."""
        for argv in self.pull(self.base[0]):
            self.call(*argv)

    def before(self):
        """What has to be done before each run, not counted."""

    def build(self, build):
        raise NotImplementedError

    def pull(self, reference):
        """Brings an image before it is built on; an empty list where the build itself does that, and no slower."""
        raise NotImplementedError

    def push(self, build, reference):
        """Sends an image that was built as `build` to `reference`."""
        raise NotImplementedError

    def archive(self, build, path):
        """Writes an image that was built as `build` to an OCI archive, gzip at level 6."""
        raise NotImplementedError

    def version(self):
        return self.call(self.program, "--version").strip().splitlines()[0]

    def daemon_pids(self):
        return {self.daemon.pid} if self.daemon else set()

    def close(self):
        if self.daemon:
            stop_process(self.daemon)
            self.daemon = None

    def reset(self):
        """Forgets everything: stops the daemon, removes all files, prepares again. Never deletes through a mount."""
        self.close()
        left = unmount_below(self.top)
        if left:
            raise Failed(f"{self.name}: can't be cleaned, still mounted: {' '.join(left)}")
        remove(self.top)
        os.makedirs(self.top)
        self.prepare()


class Ply(Builder):
    name = "ply"

    def argv(self, *args):
        return [self.program, "--store", os.path.join(self.top, "store"), *args]

    def build(self, build, *output):
        where = ["-o", "type=none"] if build.output == NOTHING else ["-t", build.name]
        flags = ["--no-cache"] if build.cold else []
        return [self.argv("build", "--progress=plain", "--network=host", "--allow=network.host", *flags, *where, *output, "-f", self.dockerfile(build)[1], build.context)]

    def prepare(self):
        self.call(*self.argv("pull", self.base[0]))

    def pull(self, reference):
        return []

    def push(self, build, reference):
        self.call(*self.argv("tag", build.name, reference))
        return [self.argv("push", reference)]

    def archive(self, build, path):
        level = ",compression-level=6" if "compression-level" in self.call(self.program, "build", "--help") else ""
        return self.build(build, "-o", f"type=oci,dest={path},compression=gzip{level}")


class Buildah(Builder):
    name = "buildah"
    isolation = "oci"
    runtime = None  # an OCI runtime other than buildah's own choice

    def argv(self, *args):
        return [self.program, "--root", os.path.join(self.top, "root"), "--runroot", os.path.join(self.top, "runroot"), *args]

    def prepare(self):
        policy = os.path.join(self.top, ".config/containers/policy.json")
        os.makedirs(os.path.dirname(policy), exist_ok=True)
        with open(policy, "w") as f:
            json.dump({"default": [{"type": "insecureAcceptAnything"}]}, f)
        super().prepare()

    def build(self, build):
        # It always commits: there is no build that leaves out the image.
        flags = ["--no-cache"] if build.cold else []
        if self.runtime and self.isolation == "oci":
            flags += ["--runtime", self.runtime]
        return [self.argv("bud", "--layers", "--pull-never", "--network=host", f"--isolation={self.isolation}", f"--jobs={build.jobs}", *flags, "-t", build.name, "-f", self.dockerfile(build)[1], build.context)]

    def pull(self, reference):
        return [self.argv("pull", "--tls-verify=false", reference)]

    def push(self, build, reference):
        return [self.argv("push", "--tls-verify=false", f"localhost/{build.name}", f"docker://{reference}")]

    def archive(self, build, path):
        return [self.argv("push", "--format=oci", "--compression-format=gzip", "--compression-level=6", f"localhost/{build.name}", f"oci-archive:{path}")]

    def close(self):
        """Removes containers of failed builds, so that nothing of theirs stays mounted."""
        subprocess.run(self.argv("rm", "--all"), env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class BuildahChroot(Buildah):
    name = "buildah-chroot"
    isolation = "chroot"


class Docker(Builder):
    """`docker build` by BuildKit in a dockerd of its own."""
    name = "docker"
    daemon_program = "dockerd"

    def host(self):
        return f"unix://{self.top}/docker.sock"

    def environment(self):
        return {**super().environment(), "DOCKER_HOST": self.host(), "DOCKER_BUILDKIT": "1"}

    def answers(self):
        return subprocess.run([self.program, "version"], env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def prepare(self):
        argv = [self.daemon_program, "--host", self.host(), "--data-root", f"{self.top}/data", "--exec-root", f"{self.top}/exec",
                "--pidfile", f"{self.top}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        self.daemon = start(argv, f"{self.top}/dockerd.log", self.answers)
        super().prepare()

    def build(self, build):
        where = ["-o", "type=cacheonly"] if build.output == NOTHING else ["-t", build.name]
        flags = ["--no-cache"] if build.cold else []
        return [[self.program, "build", "--progress=plain", "--network=host", *flags, *where, "-f", self.dockerfile(build)[1], build.context]]

    def pull(self, reference):
        return [[self.program, "pull", reference]]

    def push(self, build, reference):
        self.call(self.program, "tag", build.name, reference)
        return [[self.program, "push", reference]]

    def archive(self, build, path):
        return None  # `docker save` is Docker's own format and doesn't compress

    def version(self):
        form = "client {{.Client.Version}}, daemon {{.Server.Version}}"
        return "docker " + self.call(self.program, "version", "--format", form).strip()


class BuildKit(Builder):
    """buildctl with a buildkitd of its own. The base is named by its digest: a tag would be asked for at each build."""
    name = "buildkit"
    daemon_program = "buildkitd"

    def argv(self, *args):
        return [self.program, "--addr", f"unix://{self.top}/buildkitd.sock", *args]

    def base_reference(self):
        return f"{self.base[0].rsplit(':', 1)[0]}@{self.base[1]}"

    def answers(self):
        return subprocess.run(self.argv("debug", "workers"), env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def prepare(self):
        with open(f"{self.top}/buildkitd.toml", "w") as f:
            f.write(f'[registry."{self.registry}"]\n  http = true\n[worker.oci]\n  gc = false\n[worker.containerd]\n  enabled = false\n')
        argv = [self.daemon_program, "--config", f"{self.top}/buildkitd.toml", "--root", f"{self.top}/root", "--addr", f"unix://{self.top}/buildkitd.sock",
                "--allow-insecure-entitlement", "network.host", "--oci-worker-net", "host"]
        self.daemon = start(argv, f"{self.top}/buildkitd.log", self.answers, self.environment())
        self.call(*self.build(Build("base", ("FROM {base}", "RUN true"), self.empty(), output=NOTHING))[0])

    def empty(self):
        os.makedirs(f"{self.top}/empty", exist_ok=True)
        return f"{self.top}/empty"

    def build(self, build, output=None):
        folder, path = self.dockerfile(build)
        flags = ["--no-cache"] if build.cold else []
        output = output or ("" if build.output == NOTHING else f"type=image,name={build.name},compression=uncompressed")
        flags += ["--output", output] if output else []
        return [self.argv("build", "--progress=plain", "--frontend=dockerfile.v0", "--allow=network.host", "--opt=force-network-mode=host", *flags,
                          f"--local=context={build.context}", f"--local=dockerfile={folder}", f"--opt=filename={os.path.basename(path)}")]

    def pull(self, reference):
        return []

    def push(self, build, reference):
        return self.build(build, f"type=image,name={reference},push=true,compression=gzip")

    def archive(self, build, path):
        return self.build(build, f"type=oci,dest={path},compression=gzip,compression-level=6,force-compression=true")


class Kaniko(Builder):
    """kaniko's executor. It unpacks images over its own root, so each run gets a mount namespace and a fresh root in it, which are
    made before the clock starts (`before`) and are left until `reset`. Its cache is a repository of the loopback registry. It
    keeps no base: each run fetches and unpacks it. It isolates nothing."""
    name = "kaniko"
    unlike = {
        "copy": "gzips", "unchanged": "gzips; fetches its cache", "changed": "gzips", "big": "gzips", "archive": "builds, too; a layout", "again": "builds, too; a layout",
        "nochange": "fetches its cache",
    }
    # Everything is mounted inside the namespace, which ends with the executor: the host never sees these mounts.
    ENTER = """set -e
root=$1 context=$2 files=$3 out=$4; shift 4
mount --bind "$root" "$root"; cd "$root"
mount -t proc proc proc; mount --rbind /dev dev
mount --bind "$context" workspace; mount --bind "$files" kaniko/files; mount --bind "$out" kaniko/out
exec chroot . /kaniko/executor "$@"
"""

    def prepare(self):
        self.count = 0
        self.script = os.path.join(self.top, "enter.sh")
        with open(self.script, "w") as f:
            f.write(self.ENTER)
        os.makedirs(f"{self.top}/out", exist_ok=True)
        self.before()

    def before(self):
        self.count += 1
        self.root = f"{self.top}/root{self.count}"
        for name in ("proc", "dev", "tmp", "etc", "workspace", "kaniko/files", "kaniko/out", "kaniko/.docker"):
            os.makedirs(f"{self.root}/{name}")
        shutil.copy2(self.program, f"{self.root}/kaniko/executor")

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": "/root", "DOCKER_CONFIG": "/kaniko/.docker", "container": "kube"}

    def build(self, build, *output):
        folder, path = self.dockerfile(build)
        caching = ["--cache=false"] if build.cold else ["--cache=true", "--cache-copy-layers", "--cache-run-layers", f"--cache-repo={self.registry}/bench/kaniko-cache"]
        where = output or ("--no-push",)
        return [["unshare", "--mount", "--propagation=private", "sh", self.script, self.root, build.context, folder, f"{self.top}/out",
                 "--force", "--insecure", "--insecure-pull", "--verbosity=warn", "--context=dir:///workspace", f"--dockerfile=/kaniko/files/{os.path.basename(path)}",
                 f"--destination={build.name}", *caching, *where]]

    def pull(self, reference):
        return []

    def push(self, build, reference):
        return None  # only a build pushes

    def archive(self, build, path):
        # From its cache it would take a layer that is compressed already.
        return self.build(replace(build, cold=True), "--no-push", "--oci-layout-path=/kaniko/out/" + os.path.basename(path), "--compression=gzip", "--compression-level=6")

    def version(self):
        return " ".join(subprocess.run([self.program, "version"], stdout=subprocess.PIPE, text=True).stdout.split())


KINDS = (Ply, Docker, BuildKit, Buildah, BuildahChroot, Kaniko)
