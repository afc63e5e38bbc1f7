//! ADD of URLs: names, modes, times, what is asked when, what goes wrong.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::super::World;
use super::super::testserver::{Reply, TestServer};
use super::{Site, build_out, out, tar_of};

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn files_from_urls_have_buildkits_names_modes_and_times() {
    let (w, site) = (World::new(), Site::new());
    let dated = Reply::new(200, "abc").header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT");
    site.page("/a/b.txt?x=/y", dated.clone()).page("/plain", Reply::new(200, "plain")).page("/", Reply::new(200, "root"));
    site.page("/t.tar", Reply::new(200, tar_of(&[("in/f", "packed", 7)]))).page("/a%20b", Reply::new(200, "space"));
    site.page("/moved", Reply::new(302, "").header("Location", "/plain"));
    let u = |p: &str| site.url(p);
    w.file(
        "Dockerfile",
        &[
            "FROM scratch".to_string(),
            format!("ADD {} /dir/", u("/a/b.txt?x=/y")),
            format!("ADD {} /name", u("/plain")),
            format!("ADD {} {} /both/", u("/a%20b"), u("/moved")),
            format!("ADD {} /un/", u("/")),
            format!("ADD --chmod=755 --chown=5:6 {} /x/", u("/plain")),
            format!("ADD --link {} /linked/", u("/plain")),
            format!("ADD {} /whole/", u("/t.tar")),
            format!("ADD --unpack=true --chown=7 {} /unpacked", u("/t.tar")),
            format!("ADD --unpack {} /not-packed", u("/plain")),
        ]
        .join("\n"),
    );
    let ctx = w.path("ctx");
    build_out(&w, &[ctx.to_str().unwrap()]).ok();
    for (name, text, mode) in [
        ("dir/b.txt", "abc", 0o600),
        ("name", "plain", 0o600),
        ("both/a b", "space", 0o600),
        ("both/moved", "plain", 0o600),
        ("un/__unnamed__", "root", 0o600),
        ("x/plain", "plain", 0o755),
        ("linked/plain", "plain", 0o600),
        ("unpacked/in/f", "packed", 0o644),
        ("not-packed", "plain", 0o600),
    ] {
        let meta = std::fs::metadata(w.path("out").join(name)).unwrap();
        assert_eq!((out(&w, name).as_str(), meta.permissions().mode() & 0o7777), (text, mode), "{name}");
    }
    let time = |name: &str| std::fs::metadata(w.path("out").join(name)).unwrap().mtime();
    assert_eq!([time("dir/b.txt"), time("name"), time("unpacked/in/f")], [1_445_412_480, 0, 7]);
    assert_eq!(std::fs::read(w.path("out/whole/t.tar")).unwrap(), tar_of(&[("in/f", "packed", 7)]));
    w.ply(&["fsck", "--deep"]).ok();
}

#[test]
fn a_url_is_asked_whether_it_changed_and_the_miss_says_that_it_did() {
    let (w, site) = (World::new(), Site::new());
    site.page("/f", Reply::new(200, "one").header("ETag", "\"1\""));
    let text = format!("FROM base\nADD {} /f\nRUN cat /f > /g\n", site.url("/f"));
    w.image(&text).ok();
    let again = w.image(&text).ok();
    assert!(!again.stderr.contains("miss"), "{again:?}");
    assert_eq!(site.server.requests().iter().map(|r| r.header("if-none-match").is_some()).collect::<Vec<_>>(), [false, true]);
    site.page("/f", Reply::new(200, "two").header("ETag", "\"2\""));
    w.image(&text).ok().says(&format!("miss: {} now answers other content", site.url("/f")));
    assert_eq!(w.out(&["cat", "/g"]), "two\n".trim_end());
    // Equal content of another validator is equal.
    site.page("/f", Reply::new(200, "two").header("ETag", "\"3\""));
    assert!(!w.image(&text).ok().stderr.contains("miss"));
    let asked = site.asked("/f");
    // Two platforms, or two steps, ask once.
    w.image(&format!("FROM base\nADD {0} /f\nADD {0} /h\nRUN cat /f > /g\n", site.url("/f"))).ok();
    assert_eq!(site.asked("/f"), asked + 1);
}

#[test]
fn a_checksum_needs_no_network_once_it_was_seen() {
    let (w, site) = (World::new(), Site::new());
    site.page("/abc", Reply::new(200, "abc"));
    let url = site.url("/abc");
    let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    w.image(&format!("FROM base\nADD {url} /abc\nRUN cat /abc > /copy\n")).ok();
    let pinned = format!("FROM base\nADD --checksum={ABC} {url} /abc\nRUN cat /abc > /copy\n");
    // What it proves was in the key before: adding it runs nothing.
    assert!(!w.image(&pinned).ok().stderr.contains("miss"));
    w.image(&format!("FROM base\nADD --checksum={sha512} {url} /abc\n")).ok();
    for wrong in [ABC.replace("ba7", "000"), sha512.replace("dda", "000")] {
        let done = w.image(&format!("FROM base\n\nADD --checksum={wrong} {url} /abc\n")).fails(1);
        done.says("digest mismatch for ").says(&format!("(expected: {wrong})")).says("Dockerfile:3:");
    }
    w.image(&format!("FROM base\nADD --checksum=md5:aa {url} /abc\n")).fails(1).says("unsupported checksum digest");
    drop(site);
    assert!(!w.image(&pinned).ok().stderr.contains("miss"));
    // Another place in another file: the blob is here, also after a collection.
    w.ply(&["prune", "--force"]).ok();
    w.image(&format!("FROM base\nADD --checksum={ABC} {url} /elsewhere\n")).ok();
    assert_eq!(w.out(&["cat", "/elsewhere"]), "abc");
    let done = w.image(&format!("FROM base\nADD {url} /elsewhere\n")).fails(1);
    done.says("fetching http://127.0.0.1").says("Dockerfile:2:5").says(&format!("--checksum={ABC}"));
    w.ply(&["prune", "--all", "--force"]).ok();
    w.image(&format!("FROM base\nADD --checksum={ABC} {url} /elsewhere\n")).fails(1).says("fetching ");
}

#[test]
fn what_goes_wrong_has_its_place() {
    let (w, site) = (World::new(), Site::new());
    let location = |to: &str| Reply::new(302, "").header("Location", to);
    site.page("/loop", location("/loop")).page("/file", location("file:///etc/passwd")).page("/nowhere", location(""));
    site.page("/cut", Reply { cut_after: Some(1), ..Reply::new(200, "abc") });
    for (path, says) in [
        ("/none", "/none answered with status 404"),
        ("/loop", "there are too many redirects"),
        ("/file", "only http and https are spoken"),
    ] {
        let done = w.image(&format!("FROM base\nRUN true\nADD {} /f\n", site.url(path))).fails(1);
        done.says(says).says("Dockerfile:3:5");
    }
    w.image("FROM base\nADD http://[::1 /f\n").fails(1).says("is not a URL");
}

#[test]
fn failures_in_passing_are_tried_again() {
    let w = World::new();
    let server = TestServer::start(|_, before| match before {
        0 => Reply::new(503, "busy"),
        1 => Reply { cut_after: Some(1), ..Reply::new(200, "abc") },
        _ => Reply::new(200, "abc"),
    });
    w.image(&format!("FROM base\nADD --checksum={ABC} http://{}/f /f\n", server.host)).ok();
    assert_eq!((w.out(&["cat", "/f"]).as_str(), server.requests().len()), ("abc", 3));
}

#[test]
fn proxies_are_those_of_the_environment() {
    let w = World::new();
    let proxy = TestServer::start(|request, _| Reply::new(200, format!("by proxy: {}", request.path)));
    w.file("Dockerfile", "FROM base\nADD http://far.invalid/f /f\n");
    let build = |no_proxy: &str| {
        let mut c = w.build_command(&["-t", "t"]);
        c.env("http_proxy", format!("http://{}", proxy.host)).env("no_proxy", no_proxy);
        super::super::Done::from(c.output().unwrap())
    };
    build("").ok();
    assert_eq!(w.out(&["cat", "/f"]), "by proxy: http://far.invalid/f");
    build("far.invalid").fails(1).says("fetching http://far.invalid/f");
}

#[test]
fn a_broken_download_goes_on_where_the_server_proves_that_it_is_the_same() {
    use super::super::fixture::ranged;
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let strong = vec![("ETag".to_string(), "\"1\"".to_string())];
    let settled = vec![
        ("Last-Modified".to_string(), "Wed, 21 Oct 2015 07:28:00 GMT".to_string()),
        ("Date".to_string(), "Fri, 21 Oct 2016 07:28:00 GMT".to_string()),
    ];
    let weak = vec![("ETag".to_string(), "W/\"1\"".to_string())];
    for (name, validators, knows_parts, ranges) in [
        ("a strong tag", strong.clone(), true, vec![None, Some("bytes=500000-"), Some("bytes=900000-")]),
        ("an old date", settled, true, vec![None, Some("bytes=500000-"), Some("bytes=900000-")]),
        ("a weak tag", weak, true, vec![None, None, None]),
        ("no parts", strong, false, vec![None, Some("bytes=500000-"), Some("bytes=900000-")]),
        ("nothing", Vec::new(), true, vec![None, None, None]),
    ] {
        let (w, served) = (World::new(), content.clone());
        let server = TestServer::start(move |request, n| {
            let mut reply = if knows_parts && request.header("if-range").is_some() {
                ranged(request, &served)
            } else {
                Reply::new(200, served.clone())
            };
            reply.headers.extend(validators.clone());
            // Broken at the same place of the content, then a little further on.
            let from = if reply.status == 206 { served.len() - reply.body.len() } else { 0 };
            Reply { cut_after: [500_000, 900_000].get(n).map(|at| at - from), ..reply }
        });
        w.file("Dockerfile", &format!("FROM scratch\nADD http://{}/f /f\n", server.host));
        let ctx = w.path("ctx");
        build_out(&w, &[ctx.to_str().unwrap()]).ok();
        assert!(std::fs::read(w.path("out/f")).unwrap() == content, "{name}");
        let asked: Vec<Option<String>> = server.requests().iter().map(|r| r.header("range").map(String::from)).collect();
        assert_eq!(asked, ranges.iter().map(|r| r.map(String::from)).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_download_that_changes_while_it_is_resumed_is_fetched_anew() {
    let (w, old, new) = (World::new(), vec![1; 200_000], vec![2; 200_000]);
    let served = new.clone();
    let server = TestServer::start(move |_, n| match n {
        0 => Reply { cut_after: Some(100_000), ..Reply::new(200, old.clone()).header("ETag", "\"1\"") },
        // The part of what it has now, though If-Range names what it had.
        1 => Reply::new(200, served.clone()).header("ETag", "\"2\""),
        _ => Reply::new(200, served.clone()).header("ETag", "\"2\""),
    });
    w.file("Dockerfile", &format!("FROM scratch\nADD http://{}/f /f\n", server.host));
    let ctx = w.path("ctx");
    build_out(&w, &[ctx.to_str().unwrap()]).ok();
    assert!(std::fs::read(w.path("out/f")).unwrap() == new);
    assert_eq!(
        server.requests().iter().map(|r| r.header("if-range").map(String::from)).collect::<Vec<_>>(),
        [None, Some("\"1\"".into()), None]
    );
}
