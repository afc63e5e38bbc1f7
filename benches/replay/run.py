#!/usr/bin/env python3
"""Times `ply replay` over a generated history that mimics a real project's.

    benches/replay/run.py --ply target/release/ply                          1,000 commits, 15 steps, 3,000 files
    benches/replay/run.py --ply PATH --commits 5000 --files 20000 --runs 5

The project: a web application with a front end, a back end and docs; a Dockerfile of three stages and 15 steps that is edited
every 40 commits, and an ignore file with `**` patterns. A commit changes one to five files, most often source files, seldom a
manifest, sometimes docs only. Prints wall seconds of each run, with and without suggestions, and fails when the median of the
whole takes longer than --limit. Needs git and Python 3.9; everything lies in a temporary directory.
"""
import argparse, json, os, random, statistics, subprocess, sys, tempfile, time

IGNORE = "**/*.md\n**/node_modules\n**/.DS_Store\n**/*.log\n**/__snapshots__\ndocs\n!docs/openapi.yml\n**/*.test.ts\n.git\n.github\ncoverage/**\n"
DOCKERFILE = """FROM node:{node} AS deps
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
FROM deps AS web
COPY web ./web
COPY shared ./shared
ENV RELEASE={release}
RUN npm run build:web
FROM deps AS server
COPY shared ./shared
COPY server ./server
RUN npm run build:server
FROM node:{node}-slim
WORKDIR /srv
RUN apt-get update && apt-get install -y tini
COPY --from=server /app/dist ./dist
COPY --from=web /app/web/dist ./public
COPY . /srv/src
RUN npm prune --omit=dev
USER node
CMD ["node", "dist/main.js"]
"""


def history(folder, commits, files, seed):
    """Writes the history with git fast-import."""
    rng = random.Random(seed)
    places = ["web/src/components", "web/src/pages", "web/src/hooks/deep/er", "server/src/api", "server/src/jobs", "shared/src", "docs", ".github"]
    weights = [30, 20, 8, 18, 8, 6, 8, 2]
    names = {p: [f"{p}/{'abcdefgh'[n % 8]}/file{n:05}.ts" for n in range(max(1, files * w // 100))] for p, w in zip(places, weights)}
    out = []
    blob = lambda path, text: out.append(f"M 100644 inline {path}\ndata {len(text)}\n{text}\n")
    node, release = 20, 0
    for n in range(commits):
        when = 1_600_000_000 + n * 7200
        message = f"change {n}"
        out.append(f"commit refs/heads/main\ncommitter a <a@b> {when} +0000\ndata {len(message)}\n{message}\n")
        if n == 0:
            blob(".dockerignore", IGNORE)
            blob("package.json", "{}")
            blob("package-lock.json", "{}")
            for place in places:
                for name in names[place]:
                    blob(name, f"{name} 0")
            blob("README.md", "hello")
        if n % 40 == 0:
            release += 1
            node += n % 400 == 399
            blob("Dockerfile", DOCKERFILE.format(node=node, release=release))
        if rng.random() < 0.04:
            blob("package.json", f"{{{n}}}")
            blob("package-lock.json", f"{{{n}}}")
        if rng.random() < 0.1:
            blob("README.md", f"hello {n}")
        for place in rng.choices(places, weights, k=rng.randint(1, 5)):
            blob(rng.choice(names[place]), f"changed in {n}")
        out.append("\n")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True)
    subprocess.run(["git", "-C", folder, "fast-import", "--quiet"], input="".join(out).encode(), check=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ply", required=True)
    ap.add_argument("--commits", type=int, default=1000)
    ap.add_argument("--files", type=int, default=3000)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--limit", type=float, default=10.0, help="seconds that the median may take [10]")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="ply-replay-") as tmp:
        repository = os.path.join(tmp, "history.git")
        history(repository, args.commits, args.files, args.seed)
        whole = []
        for extra in ([], ["--no-suggestions"]):
            for n in range(args.runs):
                start = time.monotonic()
                command = [args.ply, "replay", "-n", str(args.commits), "--format", "json", *extra, repository]
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PLY_STORE": os.path.join(tmp, "store")})
                secs = time.monotonic() - start
                if done.returncode:
                    sys.exit(done.stderr)
                report = json.loads(done.stdout)
                steps, took, rate = len(report["steps"]), report["took"], report["totals"]["plywood"]
                print(f"{args.commits} commits x {steps} steps, {args.files} files {' '.join(extra)}: {secs:.2f} s, {took['objects_read']} objects, "
                      f"{took['dockerfiles']} Dockerfiles, hits {100 * rate['hits'] / rate['of']:.1f}%, {len(report['suggestions'])} suggestions")
                if not extra:
                    whole.append(secs)
        if statistics.median(whole) > args.limit:
            sys.exit(f"the median is over {args.limit} s")


if __name__ == "__main__":
    main()
