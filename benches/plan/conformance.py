#!/usr/bin/env python3
"""Plans each conformance case before it is built, and compares step by step.

usage: conformance.py --ply PATH --kit DIR [--filter STR]... [--keep-going]

DIR is the folder of the conformance kit (kit.py, run.py, cases/). Each build of a case is planned, built, planned again and
built again. What the plan says for certain must be what the build does: a hit CACHED, a step that runs not, and for the
plan's reason. Prints each contradiction, and how often what was said; exits with 1 if there was one.
"""
import argparse, collections, json, os, re, shutil, subprocess, sys, tempfile

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--ply", required=True)
ap.add_argument("--kit", required=True)
ap.add_argument("--filter", action="append", default=[])
args = ap.parse_args()
args.kit = os.path.abspath(args.kit)
sys.path.insert(0, args.kit)
import kit  # noqa: E402

STEP = re.compile(r"^#(\d+) (\[[^\]]*\]) ")
LINE = re.compile(r"^#(\d+) (CACHED|miss: (.*))$")


def call(case, n, base, work, tmp, store, words):
    cmd = [os.path.abspath(args.ply), *words, "--jobs=1", *case.args(n, base.dir), "--build-context", f"busybox=oci-layout://{base.dir}", case.context]
    with kit.stdin(case, work) as stdin:
        return subprocess.run(cmd, cwd=work, env=kit.environment(case, tmp, {"PLY_STORE": store}), umask=0o022, timeout=300,
                              stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")


def built(text):
    """What a build did with each step: None for a hit, else the reason."""
    names, out = {}, {}
    for line in text.splitlines():
        if m := STEP.match(line):
            names.setdefault(m[1], m[2])
        elif m := LINE.match(line):
            out[names[m[1]]] = m[3]
    return out


def contradictions(plan, build, counts):
    if plan.returncode:
        if build.returncode == plan.returncode:
            counts["failed alike"] += 1
            return []
        return [f"the plan ended with {plan.returncode}, the build with {build.returncode}: {plan.stderr[-300:]} / {build.stderr[-300:]}"]
    platform = lambda s: f"{s['platform']} " if "platform" in s else ""
    planned = {f"[{platform(s)}{s['stage']} {s['number']}/{s['of']}]": s for s in json.loads(plan.stdout)["steps"]}
    out = []
    did = built(build.stderr)
    for name, why in did.items():
        step = planned.get(name)
        if step is None:
            out.append(f"{name} was not planned: {sorted(planned)}")
            continue
        said = step["outcome"]
        counts[said] += 1
        if said == "hit" and why is not None or said == "runs" and why is None:
            out.append(f"{name} was planned as {step}, and built as {why}")
        elif said == "runs" and step["exact"] and step["why"] != why:
            out.append(f"{name}: planned for `{step['why']}`, built for `{why}`")
    if build.returncode == 0 and set(planned) != set(did):
        out.append(f"planned {sorted(planned)}, built {sorted(did)}")
    return out


def main():
    top = tempfile.mkdtemp(prefix="plan-conformance-")
    counts, wrong, builds = collections.Counter(), 0, 0
    try:
        os.mkdir(top + "/base")
        base = kit.Base(top + "/base")
        for case in kit.find_cases(os.path.join(args.kit, "cases"), args.filter):
            if case.expected() is None:
                continue
            tmp = f"{top}/{case.name.replace('/', '.')}"
            os.makedirs(tmp + "/t")
            work = tmp + "/w"
            kit.prepare(case, work)
            for n in range(1, case.spec.get("builds", 1) + 1):
                if n > 1:
                    kit.script(case, "between.sh", work, str(n))
                for again in ("first", "again"):
                    plan = call(case, n, base, work, tmp + "/t", top + "/store", ["plan", "--format=json"])
                    build = call(case, n, base, work, tmp + "/t", top + "/store", ["build", "--progress=plain", "-o", "type=none"])
                    builds += 1
                    for text in contradictions(plan, build, counts):
                        wrong += 1
                        print(f"{case.name}, build {n}, {again}: {text}", flush=True)
            shutil.rmtree(tmp, ignore_errors=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print(f"{builds} builds, {wrong} contradictions; of their steps {dict(counts)}")
    return 1 if wrong or not builds else 0


sys.exit(main())
