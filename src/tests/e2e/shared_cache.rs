//! Layer caches that machines share: `--cache-to` and `--cache-from`. A second machine is a second store.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache::outcomes;
use super::registry::Registry;
use super::{Done, World, is_root, skipped};

mod lies;

/// Several stages, so that a hit below needs to know what lies in another stage.
const STAGES: &str = "FROM base AS build\nWORKDIR /src\nCOPY f .\nRUN cat f > g && mkdir -p out && echo built > out/x\nRUN true\n\
     FROM base\nRUN echo hi > /hi && rm /bin/true\nCOPY --from=build /src/out /out\n\
     RUN --mount=type=bind,from=build,source=/src,target=/s cat /s/g > /g\n";
const STEPS: usize = 7;

fn world(dockerfile: &str, file: &str) -> World {
    let w = World::new();
    w.file("Dockerfile", dockerfile).file("f", file);
    w
}

/// What the registry was asked since `from`, as `METHOD PATH STATUS`.
fn requests(w: &World, from: usize) -> Vec<String> {
    let log = String::from_utf8_lossy(&std::fs::read(w.path("registry.log")).unwrap()[from..]).into_owned();
    let one = |line: &str| {
        let rest = line.split('"').collect::<Vec<_>>();
        let at = rest.iter().position(|part| part.contains(" /v2/") && part.contains(" HTTP/"))?;
        let call = rest[at].rsplit_once(' ')?.0;
        Some(format!("{call} {}", rest.get(at + 1)?.split_whitespace().next()?))
    };
    log.lines().filter_map(one).collect()
}

fn log_length(w: &World) -> usize {
    std::fs::metadata(w.path("registry.log")).unwrap().len().try_into().unwrap()
}

fn cached(done: &Done, steps: usize) {
    assert_eq!(outcomes(done), vec!["CACHED"; steps], "{}", done.stderr);
}

#[test]
fn another_machine_takes_every_step_and_moves_no_layer() {
    let first = world(STAGES, "one");
    let Some(registry) = Registry::start(&first) else { return };
    let host = registry.host();
    let cache = format!("{host}/team/cache:main");
    let to = format!("type=registry,ref={cache},mode=max");
    let name = format!("{host}/team/app:1");
    let metadata = |w: &World| std::fs::read_to_string(w.path("m.json")).unwrap();
    let push = |w: &World, more: &[&str]| {
        let m = w.path("m.json");
        let mut args = vec!["-t", &name, "--push", "--metadata-file", m.to_str().unwrap()];
        args.extend(more);
        w.build(&args).ok()
    };
    push(&first, &["--cache-to", &to]);

    // The order of the stages differs, and so do the store and the machine's paths.
    let second = world(STAGES, "one");
    let from = log_length(&first);
    let done = push(&second, &["--cache-from", &cache, "--jobs", "1"]);
    cached(&done, STEPS);
    assert_eq!(metadata(&second), metadata(&first));
    let asked = requests(&first, from);
    let moved: Vec<_> = asked
        .iter()
        .filter(|r| (r.starts_with("GET") && r.contains("/blobs/")) || (r.starts_with("PUT") && r.contains("/blobs/")))
        .collect();
    assert!(moved.is_empty(), "{moved:?}");
    let lookups = asked.iter().filter(|r| r.contains("/team/cache/")).count();
    // One for each step, one for each of the two selections, one for an image of that name, one for the plan.
    assert_eq!(lookups, STEPS + 4, "{asked:?}");

    // Without a push the image is put together here, of the result's layers alone.
    let third = world(STAGES, "one");
    let from = log_length(&first);
    let done = third.build(&["-t", "t", "--cache-from", &cache]).ok();
    cached(&done, STEPS);
    assert_eq!(third.out(&["cat", "/out/x", "/g"]), "built\none");
    let asked = requests(&first, from);
    assert_eq!(asked.iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).count(), 3, "{asked:?}");
    third.ply(&["fsck"]).ok();
    // What is here needs no network any more.
    drop(registry);
    let again = third.build(&["-t", "t"]).ok();
    assert!(outcomes(&again).iter().filter(|o| *o == "CACHED").count() >= 3, "{}", again.stderr);
}

#[test]
fn a_base_that_nobody_reads_stays_in_its_registry() {
    let w = World::new();
    let Some(registry) = Registry::start(&w) else { return };
    let (base, cache, name) =
        (format!("{}/team/base:1", registry.host()), format!("{}/team/cache", registry.host()), format!("{}/team/app:1", registry.host()));
    w.file("Dockerfile", "FROM base\nRUN echo base > /base\n").build(&["-t", &base, "--push"]).ok();
    let text = format!("FROM {base}\nRUN echo app > /app\nCOPY --from={base} /base /copy\n");
    let first = world(&text, "");
    let made = first.build(&["--cache-to", &format!("type=registry,ref={cache}")]).ok();
    let second = world(&text, "");
    let from = log_length(&w);
    let done = second.build(&["-t", &name, "--push", "--cache-from", &cache]).ok();
    cached(&done, 2);
    assert_eq!(done.stdout, made.stdout);
    let asked = requests(&w, from);
    let fetched: Vec<_> = asked.iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).collect();
    // The base's configuration.
    assert_eq!(fetched.len(), 1, "{asked:?}");
    let puller = World::new();
    puller.ply(&["pull", &name]).ok();
    assert_eq!(puller.ply(&["run", "--rm", &name, "cat", "/app", "/base", "/copy"]).ok().stdout, "app\nbase\nbase\n");
    // Steps that miss fetch it after all; an image for the store has it whole.
    second.file("Dockerfile", &format!("{text}RUN cat /base > /more\n")).build(&["-t", "t", "--cache-from", &cache]).ok();
    drop(registry);
    assert_eq!(second.out(&["cat", "/more"]), "base\n");
    second.ply(&["fsck"]).ok();
}

#[test]
fn a_changed_file_runs_what_it_must_and_is_named() {
    let first = world(STAGES, "one");
    let cache = first.path("cache");
    first.build(&["--cache-to", &format!("type=local,dest={},mode=max", cache.display())]).ok();
    let second = world(STAGES, "two");
    let done = second.build(&["-t", "t", "--cache-from", &format!("type=local,src={}", cache.display())]).ok();
    let got = outcomes(&done);
    assert!(got.contains(&"file f changed (content)".to_string()), "{got:?}");
    // WORKDIR, the other stage's RUN, and the COPY of what came out the same.
    assert_eq!(got.iter().filter(|o| *o == "CACHED").count(), 3, "{got:?}");
    assert_eq!(second.out(&["cat", "/g"]), "two");
}

#[test]
fn a_cache_of_the_result_alone_has_no_other_steps() {
    let first = world(STAGES, "one");
    let cache = first.path("cache");
    first.build(&["--cache-to", &format!("type=local,dest={}", cache.display())]).ok();
    let second = world(STAGES, "one");
    let done = second.build(&["--cache-from", &format!("type=local,src={}", cache.display())]).ok();
    assert_eq!(outcomes(&done).iter().filter(|o| *o == "CACHED").count(), 3, "{}", done.stderr);
}

#[test]
fn privileged_root_and_users_share_a_cache() {
    if !is_root() {
        return skipped("not root");
    }
    let text = "FROM base\nCOPY --chown=5:6 --chmod=4755 f /x\nRUN rm -f /x && mkdir -m 700 /d && ln -s d /l\n";
    let run = |w: &World, account: Option<&str>, cache: &Path, flag: &str| -> Done {
        let ply = w.own_ply();
        let dir = w.dir.path().display();
        let script = format!(
            "cd {dir} && HOME={dir}/home PLY_STORE={dir}/store {} build --progress=plain --build-context {} {flag} ctx",
            ply.display(),
            super::BASE
        );
        let mut command = Command::new(if account.is_some() { "runuser" } else { "sh" });
        if let Some(name) = account {
            let owned = Command::new("chown").args(["-R", name]).args([w.dir.path(), cache]).status().unwrap();
            assert!(owned.success());
            command.args(["-u", name, "--", "sh"]);
        }
        command.args(["-c", &script]).output().unwrap().into()
    };
    // With many ids, and with one: owners are recorded then.
    for (tag, ranges) in [("sca", true), ("scb", false)] {
        let Some(account) = super::users::Account::new(tag, ranges) else { return };
        let user = Some(account.name());
        let cache = tempfile::Builder::new().prefix("ply-e2e-").tempdir().unwrap();
        let (to, from) = (
            format!("--cache-to type=local,dest={}", cache.path().display()),
            format!("--cache-from type=local,src={}", cache.path().display()),
        );
        let made = run(&world(text, "x"), None, cache.path(), &to).ok();
        let second = world(text, "x");
        let taken = run(&second, user, cache.path(), &from).ok();
        cached(&taken, 2);
        assert_eq!(taken.stdout, made.stdout);
        // And back: what a user built, root takes.
        std::fs::remove_dir_all(cache.path().join("objects")).unwrap();
        run(&second, user, cache.path(), &to).ok();
        let back = run(&world(text, "x"), None, cache.path(), &from).ok();
        cached(&back, 2);
        assert_eq!(back.stdout, made.stdout);
    }
}

#[test]
fn a_clamp_of_times_is_kept_whoever_made_the_layer() {
    let text = "FROM base\nRUN echo 1 > /a\nCOPY f /f\n";
    let clamp = ["--build-arg", "SOURCE_DATE_EPOCH=1500000000"];
    for (first_flags, second_flags) in [(&[][..], &clamp[..]), (&clamp[..], &[][..]), (&clamp[..], &clamp[..])] {
        let first = world(text, "x");
        let cache = first.path("cache");
        first.build(&[first_flags, &["--cache-to", &format!("type=local,dest={}", cache.display())]].concat()).ok();
        let second = world(text, "x");
        let taken = second.build(&[second_flags, &["--cache-from", &format!("type=local,src={}", cache.display())]].concat()).ok();
        cached(&taken, 2);
        let layers = |w: &World, id: &str| w.ply(&["inspect", "--format", "{{json .RootFS.Layers}}", id.trim()]).ok().stdout;
        if !second_flags.is_empty() {
            let same = first.build(second_flags).ok();
            assert_eq!(taken.stdout, same.stdout);
            assert_eq!(layers(&second, &taken.stdout), layers(&first, &same.stdout));
        }
        // The tar is written anew and compared.
        let dest = format!("type=oci,compression=uncompressed,dest={}", second.path("o.tar").display());
        second.build(&[second_flags, &["-o", &dest]].concat()).ok();
        second.ply(&["fsck"]).ok();
    }
}

#[test]
fn layers_go_from_one_cache_to_another_registry() {
    let text = "FROM base\nRUN echo 1 > /a\nRUN true\n";
    let (first, other) = (world(text, ""), World::new());
    let (Some(from), Some(to)) = (Registry::start(&first), Registry::start(&other)) else { return };
    let cache = format!("{}/c", from.host());
    let directory = first.path("cache");
    let local = format!("type=local,dest={}", directory.display());
    let made = first.build(&["--cache-to", &format!("type=registry,ref={cache}"), "--cache-to", &local]).ok();
    let local = format!("type=local,src={}", directory.display());
    // Fetched and sent; and packed anew where another compression is wanted. The second cache gets them too.
    for (n, (source, output)) in [
        (&cache, "type=registry"),
        (&local, "type=registry"),
        (&cache, "type=registry,compression=zstd"),
        (&local, "type=registry,compression=uncompressed"),
    ]
    .into_iter()
    .enumerate()
    {
        let w = world(text, "");
        let name = format!("{}/app:{n}", to.host());
        let second = format!("{}/c{n}", to.host());
        let args = ["-t", &name, "-o", output, "--cache-from", source, "--cache-to", &format!("type=registry,ref={second}")];
        let done = w.build(&args).ok();
        cached(&done, 2);
        assert_eq!(done.stdout, made.stdout);
        let puller = World::new();
        puller.ply(&["pull", &name]).ok();
        assert_eq!(puller.ply(&["run", "--rm", &name, "cat", "/a"]).ok().stdout, "1\n");
        let again = world(text, "");
        cached(&again.build(&["-t", "t", "--cache-from", &second]).ok(), 2);
        assert_eq!(again.out(&["cat", "/a"]), "1\n");
    }
}

#[test]
fn writers_at_once_lose_nothing() {
    let reader = World::new();
    let Some(registry) = Registry::start(&reader) else { return };
    let cache = format!("{}/c", registry.host());
    let to = format!("type=registry,ref={cache},mode=max");
    let own = |n: usize| format!("FROM base AS s{n}\nRUN echo common > /c\nRUN echo {n} > /own\n");
    let worlds: Vec<World> = (0..8).map(|n| world(&own(n), "")).collect();
    let start = |w: &World| w.build_command(&["--cache-to", &to]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = worlds.iter().map(start).collect();
    for child in children {
        Done::from(child.wait_with_output().unwrap()).ok();
    }
    // The common step ran in each, at its own time: whoever was first, all others' next steps stand on the same content.
    for n in 0..8 {
        let w = world(&own(n), "");
        cached(&w.build(&["-t", "t", "--cache-from", &cache]).ok(), 2);
        assert_eq!(w.out(&["cat", "/c", "/own"]), format!("common\n{n}\n"));
    }
}

#[test]
fn what_was_done_before_a_failure_is_kept() {
    let text = "FROM base\nRUN echo 1 > /a\nRUN echo 2 > /b\nRUN false\n";
    let first = world(text, "");
    let cache = first.path("cache");
    let (to, from) = (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    first.build(&["--cache-to", &to]).fails(1);
    let second = world(text, "");
    let done = second.build(&["--cache-from", &from]).fails(1);
    assert_eq!(&outcomes(&done)[..2], ["CACHED"; 2], "{}", done.stderr);
}

#[test]
fn the_first_result_stays_until_one_is_made_anew_on_purpose() {
    let text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /u\n";
    let first = world(text, "");
    let cache = first.path("cache");
    let (to, from) = (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    let made = |flags: &[&str]| {
        let w = world(text, "");
        w.build(&[flags, &["-t", "t"]].concat()).ok();
        w.out(&["cat", "/u"])
    };
    let original = made(&["--cache-to", &to]);
    let other = made(&["--cache-to", &to]);
    assert_ne!(other, original);
    assert_eq!(made(&["--cache-from", &from]), original);
    let anew = made(&["--cache-to", &to, "--no-cache"]);
    assert_ne!(anew, original);
    assert_eq!(made(&["--cache-from", &from]), anew);
}

#[test]
fn a_result_is_there_while_later_steps_run() {
    let first = world("FROM base\nRUN echo 1 > /a\nRUN sleep 60\n", "");
    let cache = first.path("cache");
    let to = format!("type=local,dest={}", cache.display());
    let mut build = first.build_command(&["--cache-to", &to]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !cache.join("objects").is_dir() || records(&cache).is_empty() {
        assert!(build.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(build.id().try_into().unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(build.wait().unwrap().code(), Some(130));
    let second = world("FROM base\nRUN echo 1 > /a\n", "");
    cached(&second.build(&["--cache-from", &format!("type=local,src={}", cache.display())]).ok(), 1);
}

#[test]
fn a_cache_that_can_not_be_reached_is_a_notice() {
    let w = world("FROM base\nRUN echo 1 > /a\n", "");
    // Bound and closed again: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = format!("127.0.0.1:{port}/c");
    w.build(&["-t", "t", "--cache-from", &cache]).ok().says("notice: the cache").says("is not used");
    assert_eq!(w.out(&["cat", "/a"]), "1\n");
    let to = format!("type=registry,ref={cache}");
    w.build(&["--cache-to", &to]).fails(1).says("writing the cache").says("ignore-error=true");
    w.build(&["--cache-to", &format!("{to},ignore-error=true")]).ok().says("notice: writing the cache");
}

#[test]
fn an_image_carries_its_own_cache() {
    let text = "FROM base\nRUN echo 1 > /a\nCOPY f /f\n";
    let first = world(text, "x");
    let Some(registry) = Registry::start(&first) else { return };
    let name = format!("{}/team/app:1", registry.host());
    let made = first.build(&["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    let second = world(text, "x");
    let taken = second.build(&["-t", "t", "--cache-from", &name, "--build-arg", "BUILDKIT_INLINE_CACHE=1"]).ok();
    cached(&taken, 2);
    assert_eq!(taken.stdout, made.stdout);
    assert_eq!(second.out(&["cat", "/a", "/f"]), "1\nx");
    // An image that stands on it has records of its own, or none.
    second.file("Dockerfile", &format!("FROM {name}\nLABEL a=b\n")).build(&["-t", "u"]).ok();
    let config = |w: &World, image: &str| {
        let oci = w.path("oci");
        let _ = std::fs::remove_dir_all(&oci);
        w.ply(&["save", "--format", "oci", "-o", oci.to_str().unwrap(), image]).ok();
        String::from_utf8_lossy(&std::fs::read(&oci).unwrap()).into_owned()
    };
    assert!(config(&second, "t").contains("plywood.cache.v1"));
    assert!(!config(&second, "u").contains("plywood.cache.v1"));
}

/// The objects of a local cache that are records: path and text.
fn records(cache: &Path) -> Vec<(PathBuf, serde_json::Value)> {
    let files = std::fs::read_dir(cache.join("objects")).unwrap().map(|e| e.unwrap().path());
    // What begins with a dot is not there yet.
    let files = files.filter(|p| !p.file_name().unwrap().to_str().unwrap().starts_with('.'));
    let parsed = files.map(|p| (p.clone(), serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap()));
    let mut found: Vec<(PathBuf, serde_json::Value)> = parsed.collect();
    found.retain(|(_, v)| v["artifactType"].as_str().unwrap().contains("record"));
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn prebuilding_warms_all_stages_or_the_named_ones() {
    let text = "FROM base AS a\nRUN echo a > /a\nFROM base AS b\nRUN echo b > /b\nFROM base AS c\nRUN echo c > /c\nCOPY --from=a /a /a\n";
    let first = world(text, "");
    let cache = first.path("cache");
    let (to, from) = (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    let prebuild = |w: &World, args: &[&str]| -> Done {
        let ctx = w.path("ctx");
        let mut all = vec!["prebuild", "--progress=plain", "--build-context", super::BASE];
        all.extend(args);
        all.push(ctx.to_str().unwrap());
        w.ply(&all)
    };
    assert_eq!(prebuild(&first, &["--target", "a", "--target", "b"]).ok().stdout, "2 steps: 0 cached, 2 built\n");
    let done = prebuild(&first, &["--cache-to", &to]).ok();
    assert!(done.stdout.starts_with("4 steps: 2 cached, 2 built; 4 results sent, with "), "{}", done.stdout);
    // The base is one, and there is no other.
    assert_eq!(first.ply(&["images", "-q"]).ok().stdout.lines().count(), 1);
    let second = world(text, "");
    for target in ["a", "b", "c"] {
        let done = second.build(&["--target", target, "--cache-from", &from]).ok();
        assert!(outcomes(&done).iter().all(|o| o == "CACHED"), "{}", done.stderr);
    }
    prebuild(&first, &["-t", "x"]).fails(2).says("--tag has no place here");
    prebuild(&first, &["--cache-to", "type=inline"]).fails(2).says("type=inline is for an image");
    prebuild(&first, &["--target", "a", "--target", "nothing"]).fails(1).says("target stage `nothing` could not be found");
}

#[test]
fn cache_mounts_are_carried_when_asked_for() {
    let text = |last: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c,id=one --mount=type=cache,target=/d,id=two mkdir -p /c/sub && echo 1 > /c/sub/f && ln -s sub/f /c/l && echo 2 > /d/f\nRUN --mount=type=cache,target=/c,id=one --mount=type=cache,target=/d,id=two {last}\n"
        )
    };
    let first = world(&text("true"), "");
    let cache = first.path("cache");
    let (to, from) = (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    first.build(&["--cache-to", &to, "--cache-mounts=one"]).ok();
    // A step that misses sees what the first machine's steps left in the mount that was carried.
    let ids = |w: &World| w.ply(&["cache", "mounts", "--format", "{{.ID}}"]).ok().stdout;
    let second = world(&text("ls /d > /seen; cat /c/l >> /seen"), "");
    second.build(&["-t", "t", "--cache-from", &from, "--cache-mounts"]).ok();
    assert_eq!(second.out(&["cat", "/seen"]), "1\n");
    assert_eq!(ids(&second), "one\ntwo\n");
    // Not unless it is asked for, and not with --no-cache.
    for flags in [&["--cache-from", &from][..], &["--cache-from", &from, "--cache-mounts", "--no-cache-filter", "last"]] {
        let third = world(
            &text("ls /c /d > /seen").replace(
                "\nRUN --mount=type=cache,target=/c,id=one --mount=type=cache,target=/d,id=two ls",
                "\nFROM base AS last\nRUN --mount=type=cache,target=/c,id=one --mount=type=cache,target=/d,id=two ls",
            ),
            "",
        );
        third.build(&[flags, &["-t", "t"]].concat()).ok();
        assert_eq!(third.out(&["cat", "/seen"]), "/c:\n\n/d:\n");
    }
    first.build(&["--cache-mounts"]).fails(2).says("there is neither");
}
