#!/usr/bin/env python3
"""Times `ply plan` on a context of 10,000 files.

usage: measure.py --ply PATH [--files N] [--versions N] [--rounds N]

Three states, each timed over some rounds, warm: all steps hit; a file was edited since the last build; a file was edited
after so many versions of the tree were built. Prints the median and the worst in milliseconds, and what the plan said.
"""
import argparse, os, shutil, statistics, subprocess, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--ply", required=True)
ap.add_argument("--files", type=int, default=10_000)
ap.add_argument("--versions", type=int, default=20)
ap.add_argument("--rounds", type=int, default=15)
args = ap.parse_args()
top = tempfile.mkdtemp(prefix="plan-measure-")
ctx = top + "/ctx"
env = {**os.environ, "PLY_STORE": top + "/store"}
common = ["--build-context", "base=host:sh,cat,ls", "--jobs=1", ctx]


def edit(text):
    with open(f"{ctx}/src/d7/f7", "w") as f:
        f.write(text)


def plan():
    begin = time.perf_counter()
    out = subprocess.run([args.ply, "plan", *common], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return (time.perf_counter() - begin) * 1000, out


def build():
    subprocess.run([args.ply, "build", "-q", "-t", "t", *common], env=env, check=True, stdout=subprocess.DEVNULL)


def measure(name):
    # Files that changed a moment ago are read again, since the clock is too coarse to trust their stamps.
    time.sleep(2)
    plan()
    times, said = zip(*(plan() for _ in range(args.rounds)))
    says = [line for line in said[-1].splitlines() if " steps: " in line][0]
    print(f"{name:32} median {statistics.median(times):6.1f} ms   worst {max(times):6.1f} ms   {says}", flush=True)


try:
    for d in range(100):
        os.makedirs(f"{ctx}/src/d{d}")
        for n in range(args.files // 100):
            with open(f"{ctx}/src/d{d}/f{n}", "w") as f:
                f.write(f"file {d} {n}\n")
    with open(ctx + "/Dockerfile", "w") as f:
        f.write("FROM base\nWORKDIR /app\nCOPY Dockerfile .\nRUN echo ready > /r\nCOPY src src\nRUN ls src | cat > /list\nRUN echo end > /e\n")
    build()
    build()
    measure(f"{args.files} files, all hit")
    edit("edited")
    measure("one edit")
    for version in range(args.versions):
        edit(f"version {version}")
        build()
    edit("the newest")
    measure(f"one edit after {args.versions} versions")
finally:
    shutil.rmtree(top, ignore_errors=True)
