//! What registries.conf and certs.d say of registries, as the program reads them.

use std::sync::Arc;

use super::fixture::{Registry, digest};
use super::testserver::{Cut, Reply, TestServer};
use super::{Done, World, program};

/// A machine's configuration: `registries.conf`, whatever this host has.
fn configured(w: &World, conf: &str) {
    std::fs::write(w.path("registries.conf"), conf).unwrap();
}

fn ply(w: &World, args: &[&str]) -> Done {
    let mut command = w.command(args);
    command.env("CONTAINERS_REGISTRIES_CONF", w.path("registries.conf")).output().unwrap().into()
}

/// A tar with one file.
pub(super) fn layer(text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "f", text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

pub(super) fn host_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A registry with `app:1`.
fn registry() -> Registry {
    let registry = Registry::start();
    registry.content.lock().unwrap().add_image(Some("1"), host_architecture(), layer("from the registry"));
    registry
}

#[test]
fn a_mirror_is_asked_first_and_one_that_fails_is_said_once() {
    let (w, mirror, own) = (World::new(), registry(), registry());
    let broken = TestServer::start(|_, _| Reply::new(503, ""));
    let conf = |mirrors: &[&str]| {
        let mirrors: String = mirrors.iter().map(|m| format!("[[registry.mirror]]\nlocation = '{m}/copy'\n")).collect();
        format!("[[registry]]\nprefix = '*.example'\nlocation = '{}'\n{mirrors}", own.server.host)
    };
    configured(&w, &conf(&[&broken.host, &mirror.server.host]));
    let pulled = ply(&w, &["pull", "r.example/team/app:1"]).ok().says(&format!("the mirror {}/copy/team/app is left out", broken.host));
    assert_eq!((pulled.stdout.as_str(), pulled.stderr.matches("left out").count()), ("r.example/team/app:1\n", 1));
    assert_eq!(own.server.requests().len(), 0);
    assert!(mirror.server.requests().iter().all(|r| r.path.starts_with("/v2/copy/team/app/")));
    // A build pulls its base in the same way; the image has the name's own digest.
    let other = World::new();
    configured(&other, &conf(&[&broken.host]));
    other.file("Dockerfile", "FROM r.example/team/app:1\nCOPY . /c\n");
    let ctx = other.path("ctx");
    let built = ply(&other, &["build", "--progress=plain", "-t", "t", ctx.to_str().unwrap()]).ok();
    assert_eq!(built.stderr.matches("left out").count(), 1, "{}", built.stderr);
    let manifest = digest(&own.content.lock().unwrap().manifests["1"].1);
    assert!(ply(&w, &["inspect", "r.example/team/app:1"]).ok().stdout.contains(&format!("r.example/team/app@{manifest}")));
    // A push goes to the name itself, which is nowhere; mirrors get none of it.
    let before = mirror.server.requests().len();
    ply(&w, &["push", "r.example/team/app:1"]).fails(1).says("r.example");
    assert_eq!(mirror.server.requests().len(), before);
}

#[test]
fn mistakes_have_their_place_and_blocked_registries_are_blocked() {
    let w = World::new();
    configured(&w, "unqualified-search-registries = ['elsewhere.example']\n\n[[registry]]\nlocation = 'r.example'\nblockd = true\n");
    let at = format!("{}:5:1: unknown field `blockd`", w.path("registries.conf").display());
    ply(&w, &["pull", "r.example/app"]).fails(1).says(&at);
    configured(&w, "[[registry]]\nlocation = 'r.example/evil'\nblocked = true\n");
    for args in [["pull", "r.example/evil/app"], ["pull", "r.example/evil"]] {
        ply(&w, &args).fails(1).says("the registries of `r.example/evil` are blocked by");
    }
    w.file("Dockerfile", "FROM r.example/evil/app\n");
    let ctx = w.path("ctx");
    ply(&w, &["build", ctx.to_str().unwrap()]).fails(1).says("are blocked by").says("Dockerfile:1");
}

#[test]
fn others_read_the_same_file_alike() {
    let (w, own, mirror) = (World::new(), registry(), registry());
    let conf = format!(
        "[[registry]]\nprefix = 'r.example/team'\nlocation = '{}/moved'\ninsecure = true\n[[registry.mirror]]\nlocation = '{}/copy'\ninsecure = true\n",
        own.server.host, mirror.server.host
    );
    configured(&w, &conf);
    let file = w.path("registries.conf");
    ply(&w, &["pull", "r.example/team/app:1"]).ok();
    let ours: Vec<String> = mirror.server.requests().iter().map(|r| r.path.clone()).filter(|p| p.contains("/manifests/")).collect();
    let before = mirror.server.requests().len();
    let Some(judged) =
        program("skopeo", &["--registries-conf", file.to_str().unwrap(), "inspect", "--raw", "docker://r.example/team/app:1"])
    else {
        return;
    };
    judged.ok();
    let theirs: Vec<String> =
        mirror.server.requests()[before..].iter().map(|r| r.path.clone()).filter(|p| p.contains("/manifests/")).collect();
    assert_eq!(theirs, ours[..1]);
    assert_eq!(own.server.requests().len(), 0);
}

#[test]
fn certificates_come_from_the_variable_from_certs_d_or_are_not_asked_for() {
    let content = registry().content.clone();
    let tls = Registry::serve(Arc::clone(&content), true, |_, _, right| right);
    let host = tls.server.host.clone();
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tls/ca.crt");
    let name = format!("{host}/app:1");
    let pull = |set: &dyn Fn(&World, &mut std::process::Command)| {
        let w = World::new();
        configured(&w, "");
        let mut command = w.command(&["pull", &name]);
        command.env("CONTAINERS_REGISTRIES_CONF", w.path("registries.conf"));
        set(&w, &mut command);
        Done::from(command.output().unwrap())
    };
    pull(&|_, _| {}).fails(1).says("certificate");
    pull(&|_, command| {
        command.env("SSL_CERT_FILE", ca);
    })
    .ok();
    for program in ["docker", "containers"] {
        pull(&|w, _| {
            let dir = w.path("home/.config").join(program).join("certs.d").join(&host);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::copy(ca, dir.join("ca.crt")).unwrap();
        })
        .ok();
    }
    pull(&|w, _| configured(w, &format!("[[registry]]\nlocation = '{host}'\ninsecure = true\n"))).ok();
    pull(&|w, _| configured(w, &format!("[[registry]]\nlocation = '{host}/other'\ninsecure = true\n"))).fails(1).says("certificate");
}

#[test]
fn a_registry_that_wants_a_certificate_is_shown_the_one_for_it() {
    let content = registry().content.clone();
    let tls = TestServer::start_mutual_tls(move |request, _| content.lock().unwrap().answer(request));
    let w = World::new();
    let dir = w.path("home/.config/docker/certs.d").join(&tls.host);
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| format!("{}/testdata/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(file("ca.crt"), dir.join("ca.crt")).unwrap();
    w.ply(&["pull", "-q", &format!("{}/app:1", tls.host)]).fails(1);
    std::fs::copy(file("server.crt"), dir.join("client.cert")).unwrap();
    w.ply(&["pull", "-q", &format!("{}/app:1", tls.host)]).fails(1).says("client.cert can't be used: its key");
    std::fs::copy(file("server.key"), dir.join("client.key")).unwrap();
    w.ply(&["pull", "-q", &format!("{}/app:1", tls.host)]).ok();
    w.ply(&["tag", &format!("{}/app:1", tls.host), &format!("{}/app:2", tls.host)]).ok();
    w.ply(&["push", "-q", &format!("{}/app:2", tls.host)]).ok();
}

#[test]
fn a_registry_that_goes_away_for_a_moment_is_waited_for() {
    // The program's own patience: two failures cost less than a second.
    let registry = Registry::start_with(|request, n, right| match super::fixture::kind(request) {
        "manifest" if n < 1 => Reply::new(503, ""),
        "blob" if n < 1 => Reply { cut_head_after: Some(10), cut: Cut::Reset, ..right },
        _ => right,
    });
    registry.content.lock().unwrap().add_image(Some("1"), host_architecture(), layer("x"));
    let w = World::new();
    w.ply(&["pull", &format!("{}/app:1", registry.server.host)]).ok();
    w.ply(&["fsck", "--deep"]).ok();
}
