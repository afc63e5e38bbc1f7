//! How fast the single parts are that a build is made of: digest, tar, diff, compress, unpack, context walk, key and plan.
//!
//! `cargo bench --bench micro` takes about 20 seconds and prints time and throughput; words after `--` select groups or
//! benches by a part of their names (`cargo bench --bench micro -- compress`), `cargo test --bench micro` runs each once. Not a
//! test of speed: nothing fails where it is slow. Whole builds beside other builders are `benches/peers/`, long
//! Dockerfiles of many shapes `front.rs`.
//!
//! The data is the same in each run, of a fixed seed: 2,000 files of 10 kB, and 32 MiB of text that compresses to about
//! half. It lies below TMPDIR and in the page cache: what a disk costs is not measured. `unpack` writes there, so compare
//! its figures on one file system only.

#![allow(clippy::unwrap_used)] // A bench may panic: it measures what is known to work.
#![allow(missing_docs)] // a program of its own

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use plywood::snapshot::diff::{ChangeSet, changes};
use tempfile::TempDir;

const FILES: usize = 2_000;
const FILE_BYTES: usize = 10_000;
const DIRECTORIES: usize = 40;
const TEXT_BYTES: usize = 32 << 20;

fn main() {
    divan::Divan::default().sample_count(20).max_time(Duration::from_secs(2)).config_with_args().main();
    // A static is never dropped.
    if let Some(tree) = TREE.get() {
        fs::remove_dir_all(&tree.path).expect("the data can be removed");
    }
}

static TREE: OnceLock<Tree> = OnceLock::new();

/// A directory that serves as layer directory and as context.
struct Tree {
    path: PathBuf,
    dir: File,
    changes: ChangeSet,
}

fn tree() -> &'static Tree {
    TREE.get_or_init(|| {
        let path = tempfile::tempdir().expect("a temporary directory").keep();
        for (index, bytes) in text().chunks_exact(FILE_BYTES).take(FILES).enumerate() {
            let directory = path.join(format!("dir-{}", index % DIRECTORIES));
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(directory.join(format!("file-{index}.txt")), bytes).expect("a file");
        }
        let dir = File::open(&path).expect("the directory");
        let changes = changes(&dir).expect("a layer directory");
        assert_eq!(changes.file_bytes(), (FILES * FILE_BYTES) as u64);
        Tree { path, dir, changes }
    })
}

/// Lines that begin alike and end in random digits.
fn text() -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut text = Vec::with_capacity(TEXT_BYTES + 128);
        while text.len() < TEXT_BYTES {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let again = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
            writeln!(text, "let value_{} = compute(0x{state:016x}, 0x{again:016x});", state % 10).expect("memory");
        }
        text.truncate(TEXT_BYTES);
        text
    })
}

/// The tree as an uncompressed layer.
fn tar() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let mut tar = Vec::new();
        plywood::layer::write_tar(&tree().changes, &tree().dir, None, &mut tar).expect("a tar");
        tar
    })
}

/// From a layer directory to a layer: what changed, its digests, its tar.
mod layer {
    use super::*;

    #[divan::bench]
    fn diff(bencher: Bencher<'_, '_>) {
        let tree = tree();
        bencher.counter(ItemsCount::new(FILES)).bench(|| changes(&tree.dir).unwrap());
    }

    /// BLAKE3 of the content and SHA-256 of the tar in one pass.
    #[divan::bench]
    fn digest(bencher: Bencher<'_, '_>) {
        let tree = tree();
        bencher.counter(BytesCount::of_slice(tar())).bench(|| plywood::layer::digest(&tree.changes, &tree.dir, None).unwrap());
    }

    #[divan::bench]
    fn write_tar(bencher: Bencher<'_, '_>) {
        let tree = tree();
        let write = || plywood::layer::write_tar(&tree.changes, &tree.dir, None, &mut io::sink()).unwrap();
        bencher.counter(BytesCount::of_slice(tar())).bench(write);
    }
}

/// On all cores, with the digest of the compressed bytes; throughput is of the text.
mod compress {
    use super::*;
    use plywood::layer::compress::{Compressed, gzip, zstd};

    #[divan::bench]
    fn gzip_6(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::of_slice(text())).bench(|| -> Compressed {
            let mut writer = gzip(io::sink(), 6);
            writer.write_all(text()).unwrap();
            writer.finish().unwrap().1
        });
    }

    #[divan::bench]
    fn zstd_3(bencher: Bencher<'_, '_>) {
        bencher.counter(BytesCount::of_slice(text())).bench(|| -> Compressed {
            let mut writer = zstd(io::sink(), 3).unwrap();
            writer.write_all(text()).unwrap();
            writer.finish().unwrap().1
        });
    }
}

/// From a blob to a layer directory, with its diff ID; throughput is of the tar. The clean-up is not timed.
mod unpack {
    use super::*;
    use plywood::layer::{Below, Limits, UnpackOptions, decompress};
    use plywood::path::{Ownership, Root};

    #[divan::bench]
    fn plain(bencher: Bencher<'_, '_>) {
        unpacking(bencher, tar());
    }

    #[divan::bench]
    fn gzipped(bencher: Bencher<'_, '_>) {
        let mut writer = plywood::layer::compress::gzip(Vec::new(), 6);
        writer.write_all(tar()).unwrap();
        unpacking(bencher, &writer.finish().unwrap().0);
    }

    fn unpacking(bencher: Bencher<'_, '_>, blob: &[u8]) {
        let ownership = if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Recorded };
        let options = UnpackOptions { below: Below::Nothing, ownership, limits: Limits::default() };
        bencher.counter(BytesCount::of_slice(tar())).with_inputs(|| tempfile::tempdir().unwrap()).bench_values(|dir: TempDir| {
            let (_, plain) = decompress(blob, options.limits.max_bytes).unwrap();
            plywood::layer::unpack(plain, &Root::open(dir.path()).unwrap(), &options).unwrap();
            dir
        });
    }
}

/// What `COPY . /` asks of a context: which files there are, and their digests.
mod context {
    use super::*;
    use plywood::context::stat_cache::RACY_NS;
    use plywood::context::{Context, Hashing, StatCache, Wanted, select};

    /// Every file is read.
    #[divan::bench]
    fn cold(bencher: Bencher<'_, '_>) {
        let source = Context::open_directory(&tree().path, "the build context").unwrap().tree();
        let hashing = Hashing { cache: None, now: SystemTime::now() };
        bencher.counter(ItemsCount::new(FILES)).bench(|| select(&source, &all(), hashing).unwrap());
    }

    /// No file is read: all are as they were; the saved cache is opened, too.
    #[divan::bench]
    fn unchanged(bencher: Bencher<'_, '_>) {
        let source = Context::open_directory(&tree().path, "the build context").unwrap().tree();
        // Files as young as the clock's tick are not remembered.
        std::thread::sleep(Duration::from_nanos(2 * RACY_NS));
        let now = SystemTime::now();
        let cache = StatCache::open(None, now);
        let first = select(&source, &all(), Hashing { cache: Some(&cache), now }).unwrap();
        let saved = cache.to_bytes().expect("the first walk learns the files");
        let walk = |saved: Vec<u8>| {
            let cache = StatCache::open(Some(saved), now);
            let selection = select(&source, &all(), Hashing { cache: Some(&cache), now }).unwrap();
            (cache, selection)
        };
        let (cache, second) = walk(saved.clone());
        assert!(cache.to_bytes().is_none(), "the second walk learns nothing");
        assert_eq!(second.digest(), first.digest());
        bencher.counter(ItemsCount::new(FILES)).with_inputs(|| saved.clone()).bench_values(walk);
    }

    fn all() -> Wanted<'static> {
        Wanted { paths: vec![(0, ".")], parents: false, exclude: &[] }
    }
}

/// Cache keys of one step.
mod key {
    use super::*;
    use plywood::cache::files::Name;
    use plywood::cache::key::{CopyInputs, KeyInputs, MatchInputs, RunInputs, SourceInputs, SourceKind, StepInputs};
    use plywood::cache::state::StateId;
    use plywood::digest::ContentDigest;
    use plywood::image::platform::Platform;

    /// A RUN with 20 variables.
    #[divan::bench]
    fn run(bencher: Bencher<'_, '_>) {
        let inputs = inputs(StepInputs::Run(Box::new(RunInputs {
            argv: ["/bin/sh", "-c", "make -j2 && make install"].map(String::from).to_vec(),
            env: (0..20).map(|i| (format!("NAME_{i}"), format!("/usr/local/lib/value-{i}"))).collect(),
            cwd: "/srv/app".into(),
            hostname: "buildkitsandbox".into(),
            ..RunInputs::default()
        })));
        bencher.counter(ItemsCount::new(1_usize)).bench(|| inputs.key());
    }

    /// A COPY of a pattern that matches 1,000 files.
    #[divan::bench]
    fn copy(bencher: Bencher<'_, '_>) {
        let content = ContentDigest::from_bytes([7; 32]);
        let matched = |i: usize| MatchInputs { name: Name::from(format!("file-{i}.txt").as_str()), content };
        let source = SourceInputs { kind: SourceKind::Path, pattern: "*.txt".into(), matches: (0..1_000).map(matched).collect() };
        let inputs =
            inputs(StepInputs::Copy(Box::new(CopyInputs { sources: vec![source], dest: "/srv/app/".into(), ..CopyInputs::default() })));
        bencher.counter(ItemsCount::new(1_usize)).bench(|| inputs.key());
    }

    fn inputs(step: StepInputs) -> KeyInputs {
        KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step }
    }
}

/// A Dockerfile of 1,000 lines in 50 stages; items are lines.
mod plan {
    use super::*;
    use plywood::dockerfile::parse;
    use plywood::dockerfile::source::Source;
    use plywood::graph::lower::lower_with;
    use plywood::graph::{Facts, NetworkMode, StageChoice};
    use plywood::image::config::ImageConfig;
    use plywood::image::platform::Platform;

    const STAGES: usize = 50;
    const STAGE_LINES: usize = 20;

    #[divan::bench(name = "parse")]
    fn parsing(bencher: Bencher<'_, '_>) {
        let source = Source::new("Dockerfile", dockerfile());
        bencher.counter(ItemsCount::new(STAGES * STAGE_LINES)).bench(|| parse(&source).unwrap());
    }

    #[divan::bench]
    fn lower(bencher: Bencher<'_, '_>) {
        let file = parse(&Source::new("Dockerfile", dockerfile())).unwrap();
        bencher.counter(ItemsCount::new(STAGES * STAGE_LINES)).with_inputs(facts).bench_values(|mut facts| {
            let image = |_: &_| ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
            let graph = lower_with(&file, &mut facts, image, |_| None).unwrap();
            assert_eq!(graph.stages.len(), STAGES);
            graph
        });
    }

    /// Each stage copies from the one before, so that the target needs all.
    fn dockerfile() -> String {
        let stage = |stage: usize| {
            let start = match stage {
                0 => "FROM base AS stage-0\nARG VERSION=1\n".to_owned(),
                _ => format!("FROM base AS stage-{stage}\nCOPY --from=stage-{} /out /out\n", stage - 1),
            };
            let line = |line: usize| match line % 3 {
                0 => format!("ENV NAME_{line}=\"value ${{NAME_{}:-none}}\"\n", line.saturating_sub(3)),
                1 => format!("COPY --chown=1000:1000 src/{line}.txt /srv/app/{stage}/\n"),
                _ => format!("RUN make target-{line} && install -m 0755 out/{line} /usr/local/bin/\n"),
            };
            start + &(2..STAGE_LINES).map(line).collect::<String>()
        };
        (0..STAGES).map(stage).collect()
    }

    fn facts() -> Facts {
        let platform = Platform::new("linux", "amd64", "");
        Facts {
            build_args: Default::default(),
            build_platform: platform.clone(),
            target_platform: platform,
            target: None,
            stages: StageChoice::Needed,
            named_contexts: Default::default(),
            images: Default::default(),
            labels: Vec::new(),
            network: NetworkMode::Default,
            allow: Vec::new(),
            add_hosts: Vec::new(),
            no_context: false,
            epoch: None,
            ignore: None,
        }
    }
}
