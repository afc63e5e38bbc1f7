//! A shared cache that lies, or is damaged: what it says is a miss or an error, never a result.

use super::*;

#[test]
fn lies_are_misses_or_errors_and_never_results() {
    let text = "FROM base\nRUN echo 1 > /a\nRUN echo 2 > /b\n";
    let first = world(text, "");
    let pristine = first.path("cache");
    first.build(&["--cache-to", &format!("type=local,dest={}", pristine.display())]).ok();
    let build = |lie: &dyn Fn(&Path)| {
        let w = world(text, "");
        let cache = w.path("cache");
        assert!(Command::new("cp").arg("-r").args([&pristine, &cache]).status().unwrap().success());
        lie(&cache);
        let done = w.build(&["-t", "t", "--cache-from", &format!("type=local,src={}", cache.display())]);
        (w, done)
    };
    let put = |path: &Path, value: &serde_json::Value| std::fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();

    // Another step's record, nonsense, and a record without an end are none.
    let swapped = |cache: &Path| {
        let found = records(cache);
        put(&found[0].0, &found[1].1);
        put(&found[1].0, &found[0].1);
    };
    let nonsense = |cache: &Path| records(cache).iter().for_each(|(path, _)| std::fs::write(path, b"<html>").unwrap());
    let cut = |cache: &Path| {
        for (path, _) in records(cache) {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    };
    for lie in [&swapped as &dyn Fn(&Path), &nonsense, &cut] {
        let (w, done) = build(lie);
        assert_eq!(outcomes(&done.ok()).iter().filter(|o| *o == "CACHED").count(), 0);
        assert_eq!(w.out(&["cat", "/a", "/b"]), "1\n2\n");
    }

    // A layer of another step, with every digest right but that of the content.
    let other_layer = |cache: &Path| {
        let mut found = records(cache);
        let body = |value: &serde_json::Value| -> serde_json::Value {
            let digest = value["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:");
            serde_json::from_slice(&std::fs::read(cache.join("blobs/sha256").join(digest)).unwrap()).unwrap()
        };
        let (mut lie, truth) = (body(&found[0].1), body(&found[1].1));
        lie["layer"] = truth["layer"].clone();
        let bytes = serde_json::to_vec(&lie).unwrap();
        let digest = Done::from(sha256(&bytes)).ok().stdout.split(' ').next().unwrap().to_string();
        std::fs::write(cache.join("blobs/sha256").join(&digest), &bytes).unwrap();
        let layers = found[1].1["layers"].clone();
        let object = &mut found[0].1;
        object["layers"] = layers;
        object["config"] =
            serde_json::json!({"mediaType": object["config"]["mediaType"], "digest": format!("sha256:{digest}"), "size": bytes.len()});
        put(&found[0].0, &found[0].1);
    };
    // Blobs that are cut, changed, or gone.
    let layers = |cache: &Path| -> Vec<PathBuf> {
        let digest = |v: &serde_json::Value| v["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_string();
        records(cache).iter().map(|(_, v)| cache.join("blobs/sha256").join(digest(v))).collect()
    };
    let truncated = |cache: &Path| layers(cache).iter().for_each(|p| std::fs::write(p, &std::fs::read(p).unwrap()[..20]).unwrap());
    let changed = |cache: &Path| {
        for path in layers(cache) {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    };
    let gone = |cache: &Path| layers(cache).iter().for_each(|p| std::fs::remove_file(p).unwrap());
    let cases = [
        (&other_layer as &dyn Fn(&Path), "is not what its record says: its files have the content"),
        (&truncated, "fetching a layer from the cache"),
        (&changed, "fetching a layer from the cache"),
        (&gone, "fetching a layer from the cache"),
    ];
    for (lie, says) in cases {
        let (w, done) = build(lie);
        done.fails(1).says(says).says("build without that --cache-from");
        w.ply(&["images", "-q"]).ok();
        // Nothing of it is believed later.
        let after = w.build(&["-t", "t"]).ok();
        assert_eq!(w.out(&["cat", "/a", "/b"]), "1\n2\n", "{}", after.stderr);
        w.ply(&["fsck"]).ok();
    }
}

fn sha256(bytes: &[u8]) -> std::process::Output {
    use std::io::Write as _;
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap()
}
