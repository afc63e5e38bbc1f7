"""The work that is timed: groups of rows, each row one thing that all builders are asked for, each as well as it can.

A group makes its data once a round (`begin`); in a round its phases are run in order, and in each phase all builders take their
turns. What a phase does before a builder's turn isn't counted. So a cold run is cold for everybody: the data is new each round.

What each row compares stands in its title and `about`; what is wanted of ply stands in `WANTED`.
"""
import os, shutil, subprocess, time
from dataclasses import dataclass, field
from typing import Callable
import data
from builders import NOTHING, Build
from table import AsRatio, Below, Faster, Within

ABOUT = {
    "nochange": "no-change rebuild, 20 steps",
    "run1": "one RUN step, cold, no export",
    "run50": "50 RUN steps, cold, no export",
    "step": "per RUN step: (50 RUN - one RUN) / 49",
    "copy": "COPY of 20,000 files (200 MB) into the store, uncompressed: cold",
    "unchanged": "the same, unchanged",
    "changed": "the same, one file changed",
    "big": "COPY of 1 GB into the store, uncompressed",
    "archive": "1 GB layer to an OCI archive, gzip at level 6",
    "again": "second OCI archive of the same image",
    "pull": "pull + unpack of a 300 MB image: a build FROM it with RUN true, after a pull where the builder wants one",
    "push": "second push of what was built on it",
    "stages": "four independent busy stages",
    "memory": "peak memory in all of these",
}
WANTED = {
    "nochange": [Faster(10)],
    "run50": [Faster(10)],
    "step": [Below(0.008, "s")],
    "copy": [Faster(4)],
    "unchanged": [Faster(5), Within(2, "stat walk")],
    "changed": [Faster(6)],
    "big": [Faster(4)],
    "archive": [Faster(1), Within(1, "pigz+sha256sum"), AsRatio("archive", 1.03, "pigz+sha256sum")],
    "again": [Within(2, "cp")],
    "pull": [Faster(2)],
    "push": [Faster(1), Within(1, "skopeo")],
    "stages": [Within(1.1, "bare loops")],
    "memory": [Below(150e6, "bytes")],
}


@dataclass
class Phase:
    """One row's work. `commands` gives a builder's argument lists, None where it can't do it."""
    row: str
    commands: Callable
    once: Callable = lambda: None       # before anybody's turn
    after: Callable = lambda who: None  # after each turn, with the builder's or baseline's name
    baselines: dict = field(default_factory=dict)  # name -> function giving argument lists
    rows: tuple = ()                    # the rows that its times are for, if not only its own


@dataclass
class Bench:
    """What groups share: the directory for data, the registry, tools, sizes."""
    top: str
    registry: str
    tools: dict
    scale: float
    cores: int
    environment: dict
    sizes: dict = field(default_factory=dict)  # (row, who) -> bytes written, the last seen

    def scaled(self, n, least=1):
        return max(least, round(n * self.scale))

    def fresh(self, name):
        """Returns a path where nothing is; what was there is removed."""
        path = os.path.join(self.top, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.path.lexists(path) and os.remove(path)
        return path


class Group:
    """Rows on the same data. `bytes_a_builder`: what a round takes of the disk for each builder at scale 1."""
    rows = ()
    warm = False  # whether a round that isn't counted comes first: rows whose cache has to be filled
    reset_each_round = False
    independent = False  # whether a row's work stands without that of the rows before it
    bytes_a_builder = 0

    def __init__(self, bench):
        self.bench = bench

    def begin(self, n):
        """Makes round `n`'s data and returns its phases."""
        raise NotImplementedError

    def end(self):
        """Removes the data of all rounds so far; the stores are cleaned by their owners."""


class Steps(Group):
    rows = ("nochange", "run1", "run50", "step")
    warm = True
    independent = True

    def begin(self, n):
        context = os.path.join(self.bench.top, "steps")
        if not os.path.exists(context):
            data.tree(context, "steps", 200, 1400, 5)
        lines = ["FROM {base}", "ENV A=1", "WORKDIR /work"]
        for k in range(5):
            lines += [f"COPY dir00{k} src{k}", f"RUN cat src{k}/* > all{k}", f"RUN test -s all{k}"]
        lines += ["LABEL a=b", 'CMD ["true"]']
        assert len(lines) == 20
        plans = [
            Build("nochange", tuple(lines), context),
            Build("run1", ("FROM {base}", "RUN true"), context, cold=True, output=NOTHING),
            Build("run50", ("FROM {base}",) + ("RUN true",) * 50, context, cold=True, output=NOTHING),
        ]
        return [Phase(p.title, lambda b, p=p: b.build(p), rows=(p.title,) if p.title == "nochange" else (p.title, "step")) for p in plans]


class Tree(Group):
    rows = ("copy", "unchanged", "changed")
    bytes_a_builder = 0.8e9

    def begin(self, n):
        b = self.bench
        context, copied = os.path.join(b.top, f"tree{n}"), os.path.join(b.top, f"tree{n}.copy")
        data.tree(context, f"tree {n}", b.scaled(20_000))
        build = Build(f"tree{n}", ("FROM {base}", "COPY . /tree"), context)
        return [
            # A cache of file states may not trust files as young as the clock is coarse; on a build machine they are older.
            Phase("copy", lambda x: x.build(build), once=lambda: time.sleep(2), baselines={"cp -r": lambda: [["cp", "-r", context, copied]]}),
            # find asks for the size, so it looks at each file's inode.
            Phase("unchanged", lambda x: x.build(build), baselines={"stat walk": lambda: [["find", context, "-size", "+1000000k"]]}),
            Phase("changed", lambda x: x.build(build), once=lambda: data.edit(f"{context}/dir000/file00000.txt", n)),
        ]

    def end(self):
        for name in os.listdir(self.bench.top):
            if name.startswith("tree"):
                self.bench.fresh(name)


class Big(Group):
    rows = ("big", "archive", "again")
    bytes_a_builder = 4.5e9
    reset_each_round = True

    def begin(self, n):
        b = self.bench
        context = b.fresh("big")
        os.makedirs(context)
        data.half_random_file(f"{context}/file", f"big {n}", b.scaled(1024, 4))
        build = Build(f"big{n}", ("FROM scratch", "COPY file /file"), context)
        packed = b.fresh("packed")
        os.makedirs(packed)

        # Nothing is removed within a round: the second archive goes beside the first.
        def archive(builder, suffix=""):
            folder = f"{builder.top}/out" if builder.name == "kaniko" else packed
            return builder.archive(build, f"{folder}/{builder.name}{suffix}")

        def note(who):
            path = os.path.join(packed, who)
            if os.path.isfile(path):
                b.sizes["archive", who] = os.path.getsize(path)

        def cp():
            source = next(p for p in (f"{packed}/ply", f"{packed}/pigz+sha256sum") if os.path.exists(p))
            return [["cp", source, f"{packed}/copy2"]]

        squeeze = f"pigz -6 -p {b.cores} -c {context}/file | tee {packed}/pigz+sha256sum | sha256sum"
        pigz = {"pigz+sha256sum": lambda: [["sh", "-c", squeeze]]} if b.tools["pigz"] else {}
        return [
            Phase("big", lambda x: x.build(build), baselines={"cp": lambda: [["cp", f"{context}/file", f"{packed}/copy1"]]}),
            Phase("archive", archive, after=note, baselines=pigz),
            Phase("again", lambda x: archive(x, "-again"), baselines={"cp": cp}),
        ]

    def end(self):
        self.bench.fresh("packed")
        self.bench.fresh("big")


class Image(Group):
    rows = ("pull", "push")
    bytes_a_builder = 0.9e9

    def begin(self, n):
        b = self.bench
        reference = f"{b.registry}/bench/image:{n}"
        layers = [b.fresh(f"layer{k}.tar") for k in range(6)]
        data.busybox_layer(layers[0])
        for k, path in enumerate(layers[1:]):
            data.tree_layer(path, f"image {n} {k}", f"data{k}", b.scaled(2000), 30_000)
        folder = b.fresh("image")
        data.layout(folder, layers)
        data.send(b.tools["skopeo"], folder, reference, b.environment)
        context = os.path.join(b.top, "empty")
        os.makedirs(context, exist_ok=True)
        build = Build(f"image{n}", (f"FROM {reference}", "RUN true"), context)
        skopeo = [b.tools["skopeo"], "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
        local, again = b.fresh("pulled"), f"docker://{b.registry}/bench/again-skopeo:{n}"

        def pull(builder):
            return [*builder.pull(reference), *builder.build(build)]

        def push(builder):
            target = f"{b.registry}/bench/again-{builder.name}:{n}"
            commands = builder.push(build, target)
            for argv in commands or ():
                builder.call(*argv)  # the first push
            return commands

        def skopeo_push():
            argv = [*skopeo, f"oci:{local}", again]
            subprocess.run(argv, env=b.environment, check=True, stdout=subprocess.DEVNULL)
            return [argv]

        return [
            Phase("pull", pull, baselines={"skopeo": lambda: [[*skopeo, f"docker://{reference}", f"oci:{b.fresh('pulled')}"]]}),
            Phase("push", push, baselines={"skopeo": skopeo_push}),
        ]


class Stages(Group):
    rows = ("stages",)
    warm = True
    turns = None

    def begin(self, n):
        b = self.bench
        if self.turns is None:
            self.turns = data.calibrate(2 * b.scale)
        lines = []
        for k in range(4):  # each its own command: the same step would be run once
            lines += [f"FROM {{base}} AS s{k}", f"RUN {data.loop(self.turns)}; echo {k} > /out{k}"]
        lines += ["FROM {base}"] + [f"COPY --from=s{k} /out{k} /" for k in range(4)]
        context = os.path.join(b.top, "empty")
        os.makedirs(context, exist_ok=True)
        build = Build("stages", tuple(lines), context, cold=True, jobs=b.cores)
        bare = " ".join(f"busybox sh -c '{data.loop(self.turns)}' &" for _ in range(4)) + " wait"
        return [Phase("stages", lambda x: x.build(build), baselines={"bare loops": lambda: [["sh", "-c", bare]]})]


GROUPS = (Steps, Tree, Big, Image, Stages)
