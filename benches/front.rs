//! How long the front takes: scan, parse, graph and checks of Dockerfiles of 10,000 lines, in several shapes.
//!
//! `cargo bench --bench front` prints the best and the middle of many runs in milliseconds of processor time, so that other
//! work on the machine counts little; the aim is below 50 for each shape. Not a test: nothing fails where it is slow. Each
//! shape is also run with half the lines, since what takes more than about twice as long for twice as much is worth a look.
//! Words after `--` select shapes by a part of their names.
#![allow(missing_docs, clippy::print_stdout)] // a program of its own

use std::collections::BTreeMap;
use std::time::Duration;

use plywood::dockerfile;
use plywood::dockerfile::source::Source;
use plywood::graph::lower::lower_with;
use plywood::graph::{BuildGraph, Facts, ImageRequest, NetworkMode, StageChoice};
use plywood::image::config::ImageConfig;
use plywood::image::platform::Platform;

const LINES: usize = 10_000;
const RUNS: usize = 15;

fn main() {
    println!("{:28} {:>8} {:>8} {:>8}   ({LINES} lines; half: {} lines)", "shape", "best ms", "middle", "half", LINES / 2);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, shape) in SHAPES {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let (best, middle) = measure(&shape(LINES));
        let (half, _) = measure(&shape(LINES / 2));
        println!("{name:28} {:8.2} {:8.2} {:8.2}", millis(best), millis(middle), millis(half));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How long this thread was on a processor.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Returns the best and the middle of the runs.
fn measure(text: &str) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = cpu_time();
            let graph = front(text);
            let time = cpu_time() - start;
            assert!(!graph.nodes.is_empty());
            time
        })
        .collect();
    times.sort();
    (times[0], times[RUNS / 2])
}

/// The whole front, images answered at once.
fn front(text: &str) -> BuildGraph {
    let source = Source::new("Dockerfile", text);
    let file = dockerfile::parse(&source).unwrap_or_else(|error| panic!("{error}"));
    let amd64 = Platform::new("linux", "amd64", "");
    let mut facts = Facts {
        build_args: BTreeMap::new(),
        build_platform: amd64.clone(),
        target_platform: amd64,
        target: None,
        stages: StageChoice::Needed,
        named_contexts: BTreeMap::new(),
        images: BTreeMap::new(),
        labels: Vec::new(),
        network: NetworkMode::Default,
        allow: Vec::new(),
        add_hosts: Vec::new(),
        no_context: false,
        epoch: None,
        ignore: None,
    };
    lower_with(&file, &mut facts, base, |_| None).unwrap_or_else(|error| panic!("{error}"))
}

fn base(request: &ImageRequest) -> ImageConfig {
    let mut config = ImageConfig { os: "linux".into(), architecture: request.platform.architecture.clone(), ..Default::default() };
    config.config.env = vec!["PATH=/usr/bin:/bin".into()];
    config
}

type Shape = fn(usize) -> String;

/// A name, and a file of so many lines.
const SHAPES: [(&str, Shape); 12] = [
    ("one RUN a line", |n| from(n, |i| format!("RUN make target-{i} && install -m 0755 out/{i} /usr/local/bin/{i}\n"))),
    ("RUN over four lines", |n| {
        from(n / 4, |i| {
            format!("RUN apt-get update \\\n    && apt-get install -y package-{i} \\\n    # why\n    && rm -rf /var/lib/apt/lists/*\n")
        })
    }),
    ("one long RUN", |n| format!("FROM base\nRUN true{}\n", " \\\n    && echo line of a long command".repeat(n - 2))),
    ("COPY with flags", |n| from(n, |i| format!("COPY --chown=1000:1000 --chmod=0644 src/file-{i}.txt other-{i} /srv/app/dir-{i}/\n"))),
    ("ENV of their own", |n| from(n, |i| format!("ENV NAME_{i}=\"value of {i}\"\n"))),
    ("ENV of few names, expanded", |n| from(n, |i| format!("ENV NAME_{}=${{BASE_{}:-none}}:$PATH:{i}\n", i % 20, i % 7))),
    ("ARG with default, expanded", |n| from(n, |i| format!("ARG NAME_{}=prefix-${{OTHER:-{i}}}-suffix\n", i % 100))),
    ("ENV and RUN in turn", |n| from(n / 2, |i| format!("ENV NAME_{}={i}\nRUN echo $NAME_{i}\n", i % 50))),
    ("LABEL lists over ten lines", |n| {
        from(n / 10, |i| {
            let pairs: Vec<String> = (0..10).map(|k| format!("org.test.key-{i}-{k}=\"a value, {k}\"")).collect();
            format!("LABEL {}\n", pairs.join(" \\\n      "))
        })
    }),
    ("heredocs of eight lines", |n| {
        from(n / 10, |i| format!("COPY <<EOF-{i} /etc/conf-{i}\n{}EOF-{i}\n", "key = \"value of $NAME\" # and more\n".repeat(8)))
    }),
    ("stages that copy on", |n| {
        let stage = |i: usize| format!("FROM base AS stage-{i}\nCOPY --from=stage-{} /out /out\nRUN make {i}\nUSER {i}\n", i - 1);
        format!("FROM base AS stage-0\n{}", (1..n / 4).map(stage).collect::<String>())
    }),
    ("stages that start on", |n| {
        let stage = |i: usize| format!("FROM stage-{} AS stage-{i}\nRUN make {i}\nWORKDIR /w/{i}\nUSER {i}\n# comment\n\n\n\n\n\n", i - 1);
        format!("FROM base AS stage-0\n{}", (1..n / 10).map(stage).collect::<String>())
    }),
];

fn from(count: usize, line: impl Fn(usize) -> String) -> String {
    format!("FROM base\n{}", (1..count).map(line).collect::<String>())
}
