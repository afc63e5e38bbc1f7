//! Hostile archives and layers by each way in, as root and as ordinary users, upon each driver.
//!
//! | file | holds |
//! |---|---|
//! | `tar`, `image` | archives, documents and layouts, made byte by byte |
//! | `cases`, `bytes`, `documents` | the hostile ones, by the classes of `safety.md` (section 1A) |
//! | `model` | what unpacking means, said a second time |
//! | `host` | users, drivers, the canary |
//! | `random` | archives mixed at random from the same ingredients |
//! | `odd` | archives that are only odd, against umoci and GNU tar |
//!
//! The oracle is a canary outside the store that nobody may touch; besides, each archive's result is compared, name by name,
//! with the model's, so that a harness that stops short is seen. By default some 400 archives take one way in each configuration,
//! another one in the next. `PLY_TEST_ROUNDS` has all of them take all ways, and so many random ones after them;
//! `PLY_TEST_SEED` says where these begin: `PLY_TEST_ROUNDS=5000 cargo test --test e2e hostile_archives -- --nocapture`.

mod bytes;
mod cases;
mod documents;
mod host;
mod image;
mod model;
mod odd;
mod random;
mod tar;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::Done;
use super::random::number;
use cases::{Case, Verdict};
use documents::Document;
use host::{Configuration, Host, Outcome, Step, configurations};
use model::{Reading, Tree};

/// Archives of one build: a process for each would be most of the time.
const BATCH: usize = 40;
/// The same where each step copies what the steps before it brought.
const COPIED_BATCH: usize = 8;

type Listing = BTreeMap<Vec<u8>, String>;

/// What an archive becomes by one way in; none: it is refused.
type Expected = Option<Listing>;

/// The ways by which an archive gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A layer upon others: by an OCI layout, or loaded before.
    Layer,
    /// ADD to an image.
    Add,
    /// The context on standard input.
    Context,
    /// `ply import`.
    Import,
}

/// The archives with all that is derived from them.
struct Inputs {
    cases: Vec<Case>,
    documents: Vec<Document>,
    base: Tree,
    /// Whether each archive takes each way in each configuration, and not one in each.
    thorough: bool,
}

impl Inputs {
    /// Whether archive `n` goes in this way in configuration `k`.
    fn goes(&self, n: usize, way: Way, k: usize) -> bool {
        let ways = [Way::Layer, Way::Add, Way::Layer, Way::Context, Way::Layer, Way::Import];
        match ways[(n + k) % 6] {
            // Nothing can be put before compressed bytes, and a context needs a Dockerfile.
            _ if self.thorough => way != Way::Context || self.cases[n].class != "A12",
            Way::Context if self.cases[n].class == "A12" => way == Way::Import,
            its => way == its,
        }
    }

    /// Whether the image can be loaded with others: it is not refused, and packed in a way that layers have.
    fn is_loadable(&self, n: usize) -> bool {
        let packed_otherwise = [&b"BZh"[..], b"\xfd7zXZ"].iter().any(|magic| self.cases[n].bytes.starts_with(magic));
        !packed_otherwise && matches!(self.expected(n, Way::Layer), Some(Some(_)))
    }

    fn expected(&self, n: usize, way: Way) -> Option<Expected> {
        let entries = match &self.cases[n].verdict {
            Verdict::Means(entries) => entries,
            Verdict::Refused(_) => return Some(None),
            Verdict::Either => return None,
        };
        let (mut tree, reading) = match way {
            Way::Layer => (self.base.clone(), Reading::Layer),
            Way::Add => (self.base.clone(), Reading::Plain),
            Way::Context => (Tree::new(), Reading::Plain),
            Way::Import => (Tree::new(), Reading::Lowest),
        };
        let special = entries.iter().any(|e| matches!(e.kind, b'3' | b'4' | b'6'));
        if way == Way::Context && special {
            return None;
        }
        Some(tree.unpack(entries, reading).ok().map(|()| tree.listing()))
    }
}

/// A step that was planned, and what shall come of it.
enum Plan {
    /// Archives that all land, in directories of one output.
    Batch(Way, Vec<usize>),
    /// One archive; more than one step where the first only keeps it.
    One(Way, usize),
    /// An archive of an image, and the build upon it.
    Document(usize),
    /// A build that could be tempted to run the image's programs.
    Helpers(usize),
}

struct Job {
    plan: Plan,
    steps: Vec<Step>,
}

fn build(name: &str, args: &[String], context: &Path) -> Step {
    let mut all: Vec<String> = ["build", "--progress=plain", "--gc=off"].map(Into::into).into();
    all.extend_from_slice(args);
    all.push(context.display().to_string());
    Step { name: name.into(), args: all, stdin: None, depends: false }
}

fn output(out: &Path, name: &str) -> [String; 2] {
    ["-o".into(), format!("type=tar,dest={}", out.join(format!("{name}.tar")).display())]
}

/// Writes all that the configurations read.
fn write(host: &Host, inputs: &Inputs) {
    let at = |name: &str| host.w.path("in").join(name);
    for dir in ["add", "from", "context"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("from/probe"), "probe").unwrap();
    std::fs::write(at("from/Dockerfile"), "FROM c\nCOPY probe /zz-probe\n").unwrap();
    std::fs::write(
        at("from/Helpers"),
        "FROM c\nADD packed.tar.gz /added/\nCOPY --chown=evil:evil probe /zz-probe\nUSER evil\nWORKDIR /made/by/evil\n",
    )
    .unwrap();
    std::fs::write(at("from/packed.tar.gz"), tar::gzip(&tar::archive(&[tar::file("f", "x")]))).unwrap();
    std::fs::write(at("add/Dockerfile"), "FROM base\nARG N\nADD $N.tar /\n").unwrap();
    let base = tar::archive(&cases::base(&host.canary()));
    let (mut layout, mut saved) = (image::Layout::default(), image::Saved::default());
    layout.image("base", &[&base]);
    for (n, case) in inputs.cases.iter().enumerate() {
        layout.image(&n.to_string(), &[&base, &case.bytes]);
        if inputs.is_loadable(n) {
            saved.image(&format!("case:{n}"), &[&base, &case.bytes]);
        }
        std::fs::write(at(&format!("add/{n}.tar")), &case.bytes).unwrap();
        let dockerfile = tar::file("Dockerfile", "FROM scratch\nCOPY . /\n").bytes();
        std::fs::write(at(&format!("context/{n}.tar")), [dockerfile, case.bytes.clone()].concat()).unwrap();
    }
    for (n, document) in inputs.documents.iter().enumerate() {
        std::fs::write(at(&format!("document-{n}.tar")), &document.bytes).unwrap();
    }
    layout.write(&at("layout"));
    // The same images as archives: what is to be refused is not among them, for it would be refused with all others.
    std::fs::write(at("saved.tar"), saved.tar()).unwrap();
    let mut oci = image::Layout::default();
    for n in (0..inputs.cases.len()).filter(|n| inputs.is_loadable(*n)) {
        oci.image(&format!("case:{n}"), &[&base, &inputs.cases[n].bytes]);
    }
    std::fs::write(at("oci.tar"), tar::gzip(&oci.tar())).unwrap();
}

/// Says what configuration `k` of `of` does with all inputs.
fn plan(host: &Host, inputs: &Inputs, c: &Configuration, k: usize) -> Vec<Job> {
    let at = |name: &str| host.w.path("in").join(name);
    let out = host.out(c);
    let named = |name: &str, tag: &str| ["--build-context".to_string(), format!("{name}=oci-layout://{}:{tag}", at("layout").display())];
    let mut jobs = Vec::new();
    let loaded = ["", "saved.tar", "oci.tar"][k % 3];
    if !loaded.is_empty() {
        let args = ["load", "-i", at(loaded).to_str().unwrap()].map(Into::into).into();
        jobs.push(Job {
            plan: Plan::Batch(Way::Layer, Vec::new()),
            steps: vec![Step { name: "load".into(), args, stdin: None, depends: false }],
        });
    }
    for way in [Way::Layer, Way::Add] {
        let lands = |n: &usize| inputs.goes(*n, way, k) && matches!(inputs.expected(*n, way), Some(Some(_)));
        let land: Vec<usize> = (0..inputs.cases.len()).filter(lands).collect();
        for (b, batch) in land.chunks(if c.copying { COPIED_BATCH } else { BATCH }).enumerate() {
            let name = format!("batch-{way:?}-{b}");
            let mut text = String::new();
            let mut args: Vec<String> = output(&out, &name).into();
            for n in batch {
                if way == Way::Add {
                    text.push_str(&format!("FROM base AS s{n}\nADD {n}.tar /\n"));
                    continue;
                }
                let from = if loaded.is_empty() || !inputs.is_loadable(*n) { "c" } else { "case:" };
                text.push_str(&format!("FROM {from}{n} AS s{n}\nCOPY --from=probe probe /zz-probe\n"));
                if from == "c" {
                    args.extend(named(&format!("c{n}"), &n.to_string()));
                }
            }
            text.push_str("FROM scratch\n");
            batch.iter().for_each(|n| text.push_str(&format!("COPY --from=s{n} / /{n}/\n")));
            let file = out.join(format!("{name}.Dockerfile"));
            std::fs::create_dir_all(&out).unwrap();
            std::fs::write(&file, text).unwrap();
            if way == Way::Layer {
                args.extend(["--build-context".into(), format!("probe={}", at("from").display())]);
            } else {
                args.extend(named("base", "base"));
            }
            args.extend(["-f".into(), file.display().to_string()]);
            jobs.push(Job { plan: Plan::Batch(way, batch.to_vec()), steps: vec![build(&name, &args, &at("add"))] });
        }
    }
    for (n, case) in inputs.cases.iter().enumerate() {
        let ways = [Way::Layer, Way::Add, Way::Context, Way::Import].into_iter().filter(|way| inputs.goes(n, *way, k));
        for way in ways.filter(|way| matches!(way, Way::Context | Way::Import) || !matches!(inputs.expected(n, *way), Some(Some(_)))) {
            let name = format!("one-{n}-{way:?}");
            jobs.push(Job { plan: Plan::One(way, n), steps: alone(host, c, n, way, &name) });
        }
        if case.class == "A15" {
            let args = [vec!["-f".into(), at("from/Helpers").display().to_string()], named("c", &n.to_string()).into()].concat();
            jobs.push(Job { plan: Plan::Helpers(n), steps: vec![build(&format!("helpers-{n}"), &args, &at("from"))] });
        }
    }
    for n in 0..inputs.documents.len() {
        let load = ["load", "-i", at(&format!("document-{n}.tar")).to_str().unwrap()].map(Into::into).into();
        let step = Step { name: format!("document-{n}"), args: load, stdin: None, depends: false };
        jobs.push(Job { plan: Plan::Document(n), steps: vec![step] });
    }
    jobs
}

/// The steps that bring in one archive alone.
fn alone(host: &Host, c: &Configuration, n: usize, way: Way, name: &str) -> Vec<Step> {
    let at = |name: &str| host.w.path("in").join(name);
    let named = |name: &str, tag: &str| ["--build-context".to_string(), format!("{name}=oci-layout://{}:{tag}", at("layout").display())];
    let mut args: Vec<String> = output(&host.out(c), name).into();
    match way {
        Way::Layer => {
            args.extend(named("c", &n.to_string()));
            vec![build(name, &args, &at("from"))]
        }
        Way::Add => {
            args.extend(named("base", "base"));
            args.extend(["--build-arg".into(), format!("N={n}")]);
            vec![build(name, &args, &at("add"))]
        }
        Way::Context => vec![Step { stdin: Some(at(&format!("context/{n}.tar"))), ..build(name, &args, Path::new("-")) }],
        Way::Import => {
            let import = ["import".into(), at(&format!("add/{n}.tar")).display().to_string(), format!("imported:{n}")].into();
            args.extend(["--build-context".into(), format!("c=docker-image://imported:{n}")]);
            let first = Step { name: format!("import-{n}"), args: import, stdin: None, depends: false };
            vec![first, Step { depends: true, ..build(name, &args, &at("from")) }]
        }
    }
}

/// What went wrong, and how much was tried.
#[derive(Default)]
struct Tally {
    runs: usize,
    panics: usize,
    escapes: usize,
    wrong: Vec<String>,
}

fn judge(host: &Host, inputs: &Inputs, c: &Configuration, jobs: &[Job], outcome: &Outcome) -> Tally {
    let mut tally = Tally { escapes: outcome.escapes.len(), ..Tally::default() };
    tally.wrong.extend(outcome.escapes.iter().map(|e| format!("{}: the canary {e}", c.name)));
    let out = host.out(c);
    for (name, done) in &outcome.steps {
        if !matches!(done.code, Some(0 | 1)) || done.stderr.contains("panicked") {
            tally.panics += 1;
            tally.wrong.push(format!("{} {name} ended otherwise than in order: {done:#?}", c.name));
        }
        if done.stderr.contains("canary-2718281") {
            tally.wrong.push(format!("{} {name} shows what is in the canary: {done:#?}", c.name));
        }
    }
    let fsck = &outcome.steps["fsck"];
    if fsck.code != Some(0) {
        tally.wrong.push(format!("{}: {fsck:#?}", c.name));
    }
    for job in jobs {
        let done: Vec<&Done> = job.steps.iter().filter_map(|s| outcome.steps.get(&s.name)).collect();
        let failed = done.iter().find(|d| d.code != Some(0));
        let mut say = |what: String| tally.wrong.push(format!("{} {}: {what}", c.name, job.steps[0].name));
        match &job.plan {
            Plan::Batch(way, batch) => {
                tally.runs += batch.len();
                if let Some(failed) = failed {
                    let dockerfile = std::fs::read_to_string(out.join(format!("{}.Dockerfile", job.steps[0].name))).unwrap_or_default();
                    say(format!("{}{dockerfile}", failed.stderr));
                } else if !batch.is_empty() {
                    let found = listings(&out.join(format!("{}.tar", job.steps[0].name)));
                    for n in batch {
                        let wanted = inputs.expected(*n, *way).flatten().unwrap_or_default();
                        let mine = found.get(n.to_string().as_bytes()).cloned().unwrap_or_default();
                        let case = &inputs.cases[*n];
                        compare(*way, &wanted, &mine).into_iter().for_each(|d| say(format!("{} {n} `{}`: {d}", case.class, case.name)));
                    }
                }
            }
            Plan::One(way, n) => {
                tally.runs += 1;
                let case = &inputs.cases[*n];
                let about = format!("{way:?} {} {n} `{}`", case.class, case.name);
                match (inputs.expected(*n, *way), failed) {
                    (None, _) => {}
                    (Some(None), None) => say(format!("{about} is not refused")),
                    (Some(None), Some(failed)) => {
                        let text = if let Verdict::Refused(text) = case.verdict { text } else { "" };
                        if !failed.stderr.contains("error: ") || !failed.stderr.contains(text) {
                            say(format!("{about} is refused without `{text}`: {}", failed.stderr));
                        }
                    }
                    (Some(Some(_)), Some(failed)) => say(format!("{about} is refused: {}", failed.stderr)),
                    (Some(Some(wanted)), None) => {
                        let all = listing(&out.join(format!("{}.tar", job.steps.last().unwrap().name)));
                        compare(*way, &wanted, &all).into_iter().for_each(|d| say(format!("{about}: {d}")));
                    }
                }
            }
            Plan::Document(n) => {
                tally.runs += 1;
                let document = &inputs.documents[*n];
                if failed.is_none() != document.loads {
                    say(format!("A16 `{}`: {}", document.name, failed.map_or("is loaded", |d| &d.stderr)));
                }
            }
            Plan::Helpers(n) => {
                tally.runs += 1;
                failed.into_iter().for_each(|d| say(format!("A15 `{}`: {}", inputs.cases[*n].name, d.stderr)));
            }
        }
    }
    tally
}

/// Says what a result lacks or has too much. What the way in adds by itself is left out.
fn compare(way: Way, wanted: &Listing, found: &Listing) -> Vec<String> {
    let own: &[&[u8]] = match way {
        Way::Layer | Way::Import => &[b"zz-probe"],
        Way::Add => &[],
        Way::Context => &[b"Dockerfile"],
    };
    // A context's owners are those of who builds.
    let plain = |text: &String| if way == Way::Context { unowned(text) } else { text.clone() };
    let mut out = Vec::new();
    for (path, text) in wanted {
        match found.get(path) {
            Some(have) if plain(have) == plain(text) => {}
            have => out.push(format!("{} is {:?}, not {text:?}", path.escape_ascii(), have)),
        }
    }
    out.extend(
        found
            .iter()
            .filter(|(path, _)| !wanted.contains_key(*path) && !own.contains(&path.as_slice()))
            .map(|(path, text)| format!("{} is too much: {text:?}", path.escape_ascii())),
    );
    out
}

fn unowned(text: &str) -> String {
    match (text.find('('), text.find(')')) {
        (Some(a), Some(b)) => format!("{}{}", &text[..a], &text[b + 1..]),
        _ => text.into(),
    }
}

/// What is in the directories of an output, by their names.
fn listings(tar: &Path) -> BTreeMap<Vec<u8>, Listing> {
    let mut out: BTreeMap<Vec<u8>, Listing> = BTreeMap::new();
    for (path, text) in listing(tar) {
        let (top, rest) =
            path.iter().position(|&c| c == b'/').map_or((path.as_slice(), None), |i| (&path[..i], Some(path[i + 1..].to_vec())));
        let names = out.entry(top.to_vec()).or_default();
        rest.into_iter().for_each(|rest| drop(names.insert(rest, text.clone())));
    }
    out
}

/// What is in an output, in the model's words. Nothing of overlay's or of ours may be in it.
fn listing(tar: &Path) -> Listing {
    let bytes = std::fs::read(tar).unwrap_or_default();
    for mark in [&b"SCHILY.xattr.trusted."[..], b"SCHILY.xattr.user.overlay.", b"SCHILY.xattr.user.plywood."] {
        assert!(!bytes.windows(mark.len()).any(|w| w == mark), "{} is in {}", mark.escape_ascii(), tar.display());
    }
    let small = |id: std::io::Result<u64>| u32::try_from(id.unwrap()).unwrap();
    let mut found = Listing::new();
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    for e in archive.entries().unwrap() {
        let mut e = e.unwrap();
        let path = e.path_bytes().into_owned();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let link = e.link_name_bytes().unwrap_or_default().into_owned();
        let mut data = Vec::new();
        e.read_to_end(&mut data).unwrap();
        let h = e.header();
        let (mode, owner) = (h.mode().unwrap() & 0o7777, (small(h.uid()), small(h.gid())));
        let device = || (h.device_major().unwrap().unwrap_or(0), h.device_minor().unwrap().unwrap_or(0));
        let text = match h.entry_type().as_byte() {
            b'5' => format!("5 {mode:o} {owner:?}"),
            b'2' => format!("2 {}", link.escape_ascii()),
            b'1' => found.get(&link).cloned().unwrap_or_else(|| "a hard link to nothing".into()),
            kind @ (b'3' | b'4') => model::leaf(kind, b"", device(), mode, owner),
            b'6' => model::leaf(b'6', b"", (0, 0), mode, owner),
            _ => model::leaf(b'0', &data, (0, 0), mode, owner),
        };
        if !path.is_empty() && path != b"." {
            found.insert(path, text);
        }
    }
    found
}

/// Brings everything in everywhere, and returns what came of it.
fn run(
    cases: impl FnOnce(&str) -> Vec<Case>,
    documents: impl FnOnce(&str) -> Vec<Document>,
    tag: &str,
    thorough: bool,
) -> (usize, usize, usize, Tally) {
    let host = Host::new();
    let canary = host.canary();
    let mut base = Tree::new();
    base.unpack(&cases::base(&canary), Reading::Lowest).unwrap();
    let inputs = Inputs { cases: cases(&canary), documents: documents(&canary), base, thorough };
    write(&host, &inputs);
    let configurations = configurations(tag);
    let total = std::sync::Mutex::new(Tally::default());
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let k = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(c) = configurations.get(k) else { break };
                    let jobs = plan(&host, &inputs, c, k);
                    let steps: Vec<Step> = jobs.iter().flat_map(|j| &j.steps).cloned().collect();
                    let outcome = host.run(c, &steps);
                    let doctor = &outcome.steps["doctor"].stdout;
                    let copies = doctor.contains("copies: ");
                    let one = judge(&host, &inputs, c, &jobs, &outcome);
                    let mut total = total.lock().unwrap();
                    if copies != c.name.ends_with("copy") && c.name != "self" {
                        total.wrong.push(format!("{}: another driver: {doctor}", c.name));
                    }
                    total.runs += one.runs;
                    total.panics += one.panics;
                    total.escapes += one.escapes;
                    total.wrong.extend(one.wrong);
                }
            });
        }
    });
    let distinct: std::collections::BTreeSet<&[u8]> =
        inputs.cases.iter().map(|c| c.bytes.as_slice()).chain(inputs.documents.iter().map(|d| d.bytes.as_slice())).collect();
    let users: std::collections::BTreeSet<&str> = configurations.iter().filter_map(|c| c.name.split('-').next()).collect();
    (distinct.len(), users.len(), configurations.len() / users.len(), total.into_inner().unwrap())
}

#[allow(clippy::print_stdout)] // the summary
fn conclude(what: &str, (archives, users, drivers, tally): (usize, usize, usize, Tally)) -> usize {
    println!("{what}={archives} users={users} drivers={drivers} runs={} escapes={} panics={}", tally.runs, tally.escapes, tally.panics);
    let shown: Vec<&String> = tally.wrong.iter().take(40).collect();
    assert!(tally.wrong.is_empty(), "{} wrong results, such as {shown:#?}", tally.wrong.len());
    assert!(tally.runs >= archives * users * drivers && tally.runs > 0, "not everything was brought in");
    archives
}

/// Of all archives those that CI has the time for, of each class some.
fn some<T>(all: Vec<T>, of: usize, keep: &[usize]) -> Vec<T> {
    all.into_iter().enumerate().filter(|(n, _)| keep.contains(&(n % of))).map(|(_, one)| one).collect()
}

#[test]
fn hostile_archives_harm_nobody() {
    let rounds = number("PLY_TEST_ROUNDS", 0);
    if rounds == 0 {
        let done = run(|canary| some(cases::all(canary), 8, &[0, 3, 6]), |canary| some(documents::all(canary), 2, &[0]), "h", false);
        let archives = conclude("archives", done);
        assert!(archives >= 400, "{archives} archives");
        return;
    }
    conclude("archives", run(cases::all, documents::all, "h", true));
    let first = number("PLY_TEST_SEED", 1);
    let mut at = first;
    while at < first + rounds {
        let end = (at + 500).min(first + rounds);
        let done = run(|canary| (at..end).map(|seed| random::case(seed, canary)).collect(), |_| Vec::new(), "x", false);
        conclude(&format!("seeds={at}..{end} archives"), done);
        at = end;
    }
}
