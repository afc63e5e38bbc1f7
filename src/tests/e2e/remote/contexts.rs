//! Contexts, Dockerfiles and times that come from elsewhere.

use std::io::Write as _;
use std::process::Stdio;

use super::super::testserver::Reply;
use super::super::{Done, World};
use super::{Repo, Site, build_out, file_server, out, tar_of};

/// The tar of a context: a Dockerfile, files, and an ignore file that hides one.
fn context_tar() -> Vec<u8> {
    tar_of(&[
        ("Dockerfile", "FROM scratch\nCOPY . /all/\n", 1_700_000_000),
        ("sub/Other", "FROM scratch\nCOPY f /other\n", 1_700_000_000),
        (".dockerignore", "hidden\n", 1_700_000_000),
        ("hidden", "hidden", 1_700_000_400),
        ("f", "file", 1_700_000_302),
    ])
}

fn packed(with: &str, data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    match with {
        "gzip" => flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast()).write_all(data).unwrap(),
        "bzip2" => bzip2::write::BzEncoder::new(&mut packed, bzip2::Compression::fast()).write_all(data).unwrap(),
        "xz" => liblzma::write::XzEncoder::new(&mut packed, 0).write_all(data).unwrap(),
        "zstd" => packed = zstd::encode_all(data, 1).unwrap(),
        _ => packed.extend_from_slice(data),
    }
    packed
}

/// Runs a build with bytes on its standard input.
fn build_stdin(w: &World, args: &[&str], input: &[u8]) -> Done {
    let _ = std::fs::remove_dir_all(w.path("out"));
    let out = w.path("out");
    let all = [&["build", "--progress=plain", "-o", out.to_str().unwrap()], args].concat();
    let mut child = w.command(&all).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A build that fails early doesn't read on.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_tar_is_a_context_from_a_url_and_from_standard_input_however_packed() {
    let (w, site) = (World::new(), Site::new());
    for with in ["plain", "gzip", "bzip2", "xz", "zstd"] {
        let bytes = packed(with, &context_tar());
        site.page(&format!("/{with}"), Reply::new(200, bytes.clone()));
        for (args, name, text) in [(&["-"][..], "all/f", "file"), (&["-f", "sub/Other", "-"][..], "other", "file")] {
            build_stdin(&w, args, &bytes).ok();
            assert_eq!(out(&w, name), text, "{with} {args:?}");
            let url = site.url(&format!("/{with}"));
            build_out(&w, &[&args[..args.len() - 1], &[url.as_str()]].concat()).ok();
            assert_eq!(out(&w, name), text, "{with} {args:?}");
            assert!(!w.path("out/all/hidden").exists());
        }
    }
    build_stdin(&w, &["-"], &packed("gzip", b"no tar")).fails(1);
    w.ply(&["fsck"]).ok();
}

#[test]
fn a_dockerfile_comes_from_wherever_it_is_said_to_be() {
    let (w, site) = (World::new(), Site::new());
    site.page("/Dockerfile", Reply::new(200, "FROM scratch\nCOPY context /self\n"));
    site.page("/other", Reply::new(200, "FROM scratch\nCOPY f /from-url\n"));
    site.page("/ctx", Reply::new(200, context_tar()));
    let (ctx, other, plain) = (site.url("/ctx"), site.url("/other"), site.url("/Dockerfile"));
    // What is no tar is the Dockerfile itself, and the one file of the context.
    build_out(&w, &[&plain]).ok();
    assert_eq!(out(&w, "self"), "FROM scratch\nCOPY context /self\n");
    build_out(&w, &["-f", &other, &ctx]).ok();
    assert_eq!(out(&w, "from-url"), "file");
    w.file("f", "local");
    build_out(&w, &["-f", &other, w.path("ctx").to_str().unwrap()]).ok();
    assert_eq!(out(&w, "from-url"), "local");
    build_stdin(&w, &["-f", "-", &ctx], b"FROM scratch\nCOPY f /by-stdin\n").ok();
    assert_eq!(out(&w, "by-stdin"), "file");
    w.file("Local", "FROM scratch\nCOPY f /by-host\n");
    build_out(&w, &["-f", w.path("ctx/Local").to_str().unwrap(), &ctx]).ok();
    assert_eq!(out(&w, "by-host"), "file");
    build_out(&w, &["-f", "none", &ctx]).fails(1).says("no Dockerfile at `none`");
    build_out(&w, &[&site.url("/gone")]).fails(1).says("/gone answered with status 404");
}

#[test]
fn a_repository_is_a_context_with_its_ignore_file_and_keeps_git_when_told() {
    let w = World::new();
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("Dockerfile", "FROM scratch\nCOPY . /all/\n").write("f", "file").write(".dockerignore", "hidden\n").write("hidden", "h");
    repo.write("sub/x.Dockerfile", "FROM scratch\nCOPY f /x\n");
    let commit = repo.commit("1");
    let server = file_server(w.dir.path().to_path_buf());
    let url = format!("http://{}/repo/.git", server.host);
    build_out(&w, &[&url]).ok();
    assert_eq!(out(&w, "all/f"), "file");
    assert!(!w.path("out/all/hidden").exists() && !w.path("out/all/.git").exists());
    build_out(&w, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).ok();
    assert_eq!(out(&w, "all/.git/HEAD"), format!("{commit}\n"));
    build_out(&w, &["-f", "sub/x.Dockerfile", &url]).ok();
    assert_eq!(out(&w, "x"), "file");
    let again = build_out(&w, &["-f", "sub/x.Dockerfile", &url]).ok();
    assert!(!again.stderr.contains("miss"), "{again:?}");
}

#[test]
fn named_contexts_are_fetched_when_a_step_reads_them() {
    let (w, site) = (World::new(), Site::new());
    site.page("/data.tar", Reply::new(200, context_tar()));
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("f", "git").write("d/g", "deep").commit("1");
    let server = file_server(w.dir.path().to_path_buf());
    let git = format!("src=http://{}/repo/.git", server.host);
    let tar = format!("tar={}", site.url("/data.tar"));
    let unused = format!("unused={}", site.url("/unused"));
    let contexts = ["-t", "t", "--build-context", &git, "--build-context", &tar, "--build-context", &unused];
    w.file(
        "Dockerfile",
        "FROM base\nCOPY --from=src f /f\nCOPY --from=tar / /tar/\nRUN --mount=from=src,target=/m cat /m/d/g > /g\nFROM src\nCOPY --from=0 /f /g /tar/ /of/\n",
    );
    w.build(&contexts).ok();
    w.build(&[&contexts[..], &["-o", w.path("out").to_str().unwrap()]].concat()).ok();
    let read = ["f", "of/f", "of/g", "d/g"].map(|name| out(&w, name));
    assert_eq!(read, ["git", "git", "deep", "deep"]);
    // BuildKit's rule: what a URL gives stays one file.
    assert_eq!(std::fs::read(w.path("out/of/context")).unwrap(), context_tar());
    assert_eq!(site.asked("/unused"), 0);
    w.file("Dockerfile", "FROM base\nCOPY --from=unused context /\n").build(&contexts).fails(1).says("/unused answered with status 404");
    w.build(&["--build-context", "x=https://h.invalid/r.git?foo=1"]).fails(1).says("--build-context x").says("unexpected query `foo`");
}

#[test]
fn an_epoch_is_the_commits_the_servers_or_the_newest_files_time() {
    let (w, site) = (World::new(), Site::new());
    let epoch = "FROM base\nARG SOURCE_DATE_EPOCH\nRUN echo -n \"$SOURCE_DATE_EPOCH\" > /epoch\n";
    let tar = tar_of(&[("Dockerfile", epoch, 1_700_000_001), ("f", "f", 1_700_000_302)]);
    site.page("/ctx", Reply::new(200, tar.clone())).page("/f", Reply::new(200, "f"));
    site.page("/dated", Reply::new(200, tar.clone()).header("Last-Modified", "Tue, 14 Nov 2023 22:16:41 GMT"));
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("Dockerfile", epoch).commit("1");
    let server = file_server(w.dir.path().to_path_buf());
    let git = format!("http://{}/repo/.git", server.host);
    let stage = format!("FROM scratch AS src\nARG F=ctx\nADD {}/$F /\n{epoch}", site.url(""));
    let check = |args: &[&str], want: &str| {
        build_out(&w, args).ok();
        assert_eq!(out(&w, "epoch"), want, "{args:?}");
    };
    let context = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    check(&[&context[..], &[&site.url("/ctx")]].concat(), "1700000302");
    check(&[&context[..], &[&site.url("/dated")]].concat(), "1700000201");
    check(&[&context[..], &[&git]].concat(), "1700000101");
    w.file("Dockerfile", &stage);
    let ctx = w.path("ctx");
    let ctx = ctx.to_str().unwrap();
    // A directory has no time of its own: as if it had not been given.
    check(&[&context[..], &[ctx]].concat(), "");
    check(&["--build-arg", "SOURCE_DATE_EPOCH=src", ctx], "1700000302");
    check(&["--build-arg", "SOURCE_DATE_EPOCH=src", "--build-arg", "F=dated", ctx], "1700000201");
    check(&["--build-arg", "SOURCE_DATE_EPOCH=src", "--build-arg", "F=f", ctx], "");
    for (value, want) in [(site.url("/dated"), "1700000201"), (site.url("/ctx"), "1700000302"), (git, "1700000101"), (ctx.into(), "")] {
        check(&["--build-arg", "SOURCE_DATE_EPOCH=n", "--build-context", &format!("n={value}"), ctx], want);
    }
    let done = build_stdin(&w, &["--build-context", super::super::BASE, "--build-arg", "SOURCE_DATE_EPOCH=context", "-"], &tar);
    done.ok();
    assert_eq!(out(&w, "epoch"), "1700000302");
    build_out(&w, &["--build-arg", "SOURCE_DATE_EPOCH=none", ctx]).fails(1).says("invalid SOURCE_DATE_EPOCH");
}
