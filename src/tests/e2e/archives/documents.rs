//! Archives of images whose documents are hostile (A16): configurations, manifests, indexes, docker's list.

use serde_json::{Value, json};

use super::image::{CONFIG, INDEX, Layout, MANIFEST, Saved, config, descriptor, diff_id, layer_type};
use super::tar::{Entry, archive, dir, entry, file, hardlink, symlink};

/// An archive for `ply load`, and whether that succeeds; what it takes is then built upon, too.
#[derive(Clone)]
pub struct Document {
    pub name: String,
    pub bytes: Vec<u8>,
    pub loads: bool,
}

pub fn all(canary: &str) -> Vec<Document> {
    let layer = archive(&[dir("etc"), file("etc/passwd", "root:x:0:0::/:/bin/sh\n")]);
    [configs(&layer), manifests(&layer), indexes(&layer), saved(&layer, canary), layouts(&layer, canary)].concat()
}

fn document(name: impl Into<String>, bytes: Vec<u8>, loads: bool) -> Document {
    Document { name: name.into(), bytes, loads }
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

fn with_config(layer: &[u8], text: &[u8]) -> Vec<u8> {
    let mut layout = Layout::default();
    let config = layout.blob(CONFIG, text);
    let layer = layout.blob(layer_type(layer), layer);
    layout.manifest("t", json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).to_string().as_bytes());
    layout.tar()
}

fn configs(layer: &[u8]) -> Vec<Document> {
    let good = config(&[diff_id(layer)]);
    let mut out = Vec::new();
    let mut raw = |text: &[u8], loads| {
        out.push(document(format!("config {}", text[..text.len().min(40)].escape_ascii()), with_config(layer, text), loads))
    };
    for text in
        ["", "null", "[]", "\"\"", "0", "{", "{}", "{}{}", "{\"rootfs\":null}", "{\"rootfs\":{}}", "\u{feff}{}", "\0", "{\"a\":1e999999}"]
    {
        raw(text.as_bytes(), false);
    }
    raw(b"{\"\xff\":1}", false);
    raw(nested(100_000, "[", "]").as_bytes(), false);
    raw(nested(100_000, "{\"a\":", "}").as_bytes(), false);
    raw(format!("{{\"architecture\":\"amd64\",{}", &good.to_string()[1..]).as_bytes(), false);
    raw([b"{\"x\":\"".to_vec(), vec![b'x'; 5 << 20], b"\"}".to_vec()].concat().as_slice(), false);
    let mut set = |path: &str, value: Value, loads| {
        let mut text = good.clone();
        match path.split_once('.') {
            None => text[path] = value.clone(),
            Some((a, b)) => text[a][b] = value.clone(),
        }
        let shown: String = value.to_string().chars().take(30).collect();
        out.push(document(format!("config {path} {shown}"), with_config(layer, text.to_string().as_bytes()), loads));
    };
    let other = "sha256:".to_string() + &"0".repeat(64);
    for (path, value, loads) in [
        ("rootfs.diff_ids", json!(null), false),
        ("rootfs.diff_ids", json!([]), false),
        ("rootfs.diff_ids", json!([other]), true),
        ("rootfs.diff_ids", json!([diff_id(layer).to_string(), other]), false),
        ("rootfs.diff_ids", json!(["sha256:../../../../etc/passwd"]), false),
        ("rootfs.diff_ids", json!([format!("sha256:{}", "A".repeat(64))]), false),
        ("rootfs.diff_ids", json!(["sha512:00"]), false),
        ("rootfs.diff_ids", json!([1]), false),
        ("rootfs.type", json!(null), false),
        ("history", json!(null), true),
        ("history", json!([null]), false),
        ("history", json!([{}, {}, {}]), true),
        ("history", json!([{"empty_layer": true}, {"empty_layer": true}]), true),
        ("history", json!([{"created": "yesterday", "created_by": "\u{1b}[2J\u{7}"}]), true),
        ("history", json!(vec![json!({}); 20_000]), true),
        ("history", json!({"a": 1}), false),
        ("config", json!(null), true),
        ("config", json!([]), false),
        ("config.Env", json!(null), true),
        ("config.Env", json!([null]), false),
        ("config.Env", json!(["NOTHING", "=", "=x", "A\u{0}=b", "PATH=../../..", "LD_PRELOAD=/x.so"]), true),
        ("config.Env", json!("A=b"), false),
        ("config.Cmd", json!("sh"), false),
        ("config.Cmd", json!([["sh"]]), false),
        ("config.Entrypoint", json!([]), true),
        ("config.User", json!("../../etc/passwd"), true),
        ("config.User", json!("-1:4294967296"), true),
        ("config.User", json!("99999999999999999999"), true),
        ("config.User", json!(5), false),
        ("config.WorkingDir", json!("../../../.."), true),
        ("config.WorkingDir", json!("\u{0}"), true),
        ("config.WorkingDir", json!("/proc/self/fd/3"), true),
        ("config.ExposedPorts", json!({"": {}, "x/y/z": {}, "99999/tcp": {}}), true),
        ("config.Volumes", json!({"": {}, "../..": {}, "/": {}}), true),
        ("config.Volumes", json!([]), false),
        ("config.Labels", json!({"a": 1}), false),
        ("config.Labels", json!({"": "", "\u{1b}[31m": "\n"}), true),
        ("config.Healthcheck", json!({"Interval": -1, "Retries": -9_223_372_036_854_775_808_i64}), true),
        ("config.Healthcheck", json!({"Test": 5}), false),
        ("config.Shell", json!([]), true),
        ("config.Shell", json!([""]), true),
        ("config.OnBuild", json!(["FROM scratch"]), true),
        ("config.OnBuild", json!(["ONBUILD RUN x"]), true),
        ("config.OnBuild", json!(["COPY --from=t / /x", "NOTHING", ""]), true),
        ("config.OnBuild", json!([null]), false),
        ("config.StopSignal", json!("SIGNOTHING"), true),
        ("architecture", json!(null), false),
        ("architecture", json!(""), true),
        ("architecture", json!("../../x"), true),
        ("os", json!("windows"), true),
        ("os", json!(1), false),
        ("created", json!("9999999-99-99"), true),
        ("created", json!(-1), false),
        ("variant", json!("\u{0}/.."), true),
    ] {
        set(path, value, loads);
    }
    out
}

fn manifests(layer: &[u8]) -> Vec<Document> {
    let text = config(&[diff_id(layer)]).to_string().into_bytes();
    let good = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &text), "layers": [descriptor(layer_type(layer), layer)]});
    let mut out = Vec::new();
    let mut raw = |name: String, manifest: &[u8], loads| {
        let mut layout = Layout::default();
        layout.blob(CONFIG, &text);
        layout.blob(layer_type(layer), layer);
        layout.manifest("t", manifest);
        out.push(document(name, layout.tar(), loads));
    };
    for text in ["", "null", "[]", "{}", "{", "0", "{\"schemaVersion\":2}", "{\"layers\":[]}"] {
        raw(format!("manifest {text:?}"), text.as_bytes(), false);
    }
    raw("manifest nested".into(), nested(100_000, "[", "]").as_bytes(), false);
    raw("manifest with a key twice".into(), format!("{{\"schemaVersion\":2,{}", &good.to_string()[1..]).as_bytes(), false);
    for (path, value, loads) in [
        ("schemaVersion", json!(1), false),
        ("schemaVersion", json!("2"), false),
        ("schemaVersion", json!(-1), false),
        ("mediaType", json!(INDEX), false),
        ("mediaType", json!("text/plain"), false),
        ("manifests", json!([]), false),
        ("fsLayers", json!([]), true),
        ("config", json!(null), false),
        ("config", json!({}), false),
        ("layers", json!(null), false),
        ("layers", json!([]), false),
        ("layers", json!([null]), false),
        ("layers", json!("x"), false),
        ("layers", json!(vec![descriptor(layer_type(layer), layer); 10_001]), false),
        ("annotations", json!({"a": 1}), false),
        ("annotations", json!({"org.opencontainers.image.ref.name": "../../x"}), true),
        ("subject", json!({"digest": "x"}), false),
    ] {
        let mut m = good.clone();
        m[path] = value.clone();
        let shown: String = value.to_string().chars().take(30).collect();
        raw(format!("manifest {path} {shown}"), m.to_string().as_bytes(), loads);
    }
    for (of, key, value, loads) in [
        ("config", "size", json!(-1), false),
        ("config", "size", json!(0), false),
        ("config", "size", json!(1.5), false),
        ("config", "size", json!(u64::MAX), false),
        ("config", "digest", json!("sha256:../../../../../../etc/passwd"), false),
        ("config", "digest", json!(format!("sha256:{}", "0".repeat(64))), false),
        ("config", "mediaType", json!("application/vnd.cncf.helm.config.v1+json"), false),
        ("layers", "size", json!(-1), false),
        ("layers", "size", json!(0), false),
        ("layers", "size", json!(1), false),
        ("layers", "size", json!(9_223_372_036_854_775_807_u64), false),
        ("layers", "size", json!(u64::MAX), false),
        ("layers", "digest", json!("sha256:"), false),
        ("layers", "digest", json!("../../../../../../etc/passwd"), false),
        ("layers", "digest", json!(format!("sha512:{}", "0".repeat(128))), false),
        ("layers", "digest", json!(format!("sha256:{}", "0".repeat(64))), false),
        ("layers", "mediaType", json!("application/json"), false),
        ("layers", "mediaType", json!(""), false),
        ("layers", "data", json!("bm90IGl0"), false),
        ("layers", "data", json!("!!!"), false),
        ("layers", "urls", json!(["file:///etc/passwd", "ext::sh"]), true),
    ] {
        let mut m = good.clone();
        let target = if of == "config" { &mut m["config"] } else { &mut m["layers"][0] };
        target[key] = value.clone();
        let shown: String = value.to_string().chars().take(30).collect();
        raw(format!("manifest {of} {key} {shown}"), m.to_string().as_bytes(), loads);
    }
    out
}

fn indexes(layer: &[u8]) -> Vec<Document> {
    let mut layout = Layout::default();
    layout.image("t", &[layer]);
    let good = layout.manifests[0].clone();
    let mut out = Vec::new();
    let mut raw = |name: String, index: &str, loads| {
        let mut layout = layout.clone();
        layout.files.insert("index.json".into(), index.as_bytes().to_vec());
        out.push(document(name, layout.tar(), loads));
    };
    for text in ["", "null", "[]", "{}", "{", "{\"schemaVersion\":2,\"manifests\":null}", "{\"schemaVersion\":2,\"manifests\":{}}"] {
        raw(format!("index {text:?}"), text, false);
    }
    raw("index nested".into(), &nested(100_000, "[", "]"), false);
    for (key, value, loads) in [
        ("digest", json!("sha256:../../../../../../etc/passwd"), false),
        ("digest", json!(format!("sha256:{}", "0".repeat(64))), false),
        ("size", json!(-1), false),
        ("size", json!(1), false),
        ("size", json!(u64::MAX), false),
        ("mediaType", json!("application/vnd.oci.image.config.v1+json"), false),
        ("mediaType", json!(""), true),
        ("platform", json!(null), true),
        ("platform", json!({"os": "linux"}), false),
        ("platform", json!({"os": "../..", "architecture": ""}), true),
        ("annotations", json!(null), true),
        ("annotations", json!({"org.opencontainers.image.ref.name": "../../../etc/passwd"}), true),
        ("annotations", json!({"org.opencontainers.image.ref.name": "-rf/..:x"}), false),
        ("annotations", json!({"org.opencontainers.image.ref.name": "a\u{0}b:c"}), false),
        ("annotations", json!({"io.containerd.image.name": "x".repeat(100_000) + "/y:z"}), false),
    ] {
        let mut entry = good.clone();
        entry[key] = value.clone();
        let shown: String = value.to_string().chars().take(50).collect();
        raw(format!("index {key} {shown}"), &json!({"schemaVersion": 2, "manifests": [entry]}).to_string(), loads);
    }
    raw("index with one image 2,000 times".into(), &json!({"schemaVersion": 2, "manifests": vec![good.clone(); 2000]}).to_string(), true);
    let mut deep = layout.clone();
    let mut entry = good;
    for _ in 0..20 {
        entry = deep.blob(INDEX, json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string().as_bytes());
    }
    deep.manifests = vec![entry];
    out.push(document("indexes in indexes", deep.tar(), false));
    out
}

fn saved(layer: &[u8], canary: &str) -> Vec<Document> {
    let mut good = Saved::default();
    good.image("saved:1", &[layer]);
    let image = good.images[0].clone();
    let files: Vec<Entry> = good.files.iter().map(|(name, bytes)| Entry { data: bytes.clone(), ..file(name, "") }).collect();
    let mut out = Vec::new();
    let mut raw = |name: String, text: &str, more: Vec<Entry>, loads| {
        let list = Entry { data: text.into(), ..file("manifest.json", "") };
        out.push(document(format!("saved: {name}"), archive(&[files.clone(), more, vec![list]].concat()), loads));
    };
    for text in ["", "null", "{}", "[null]", "[{}]", "[1]", "[", "{\"schemaVersion\":2}"] {
        raw(format!("{text:?}"), text, vec![], false);
    }
    raw("no image".into(), "[]", vec![], true);
    raw("nested".into(), &nested(100_000, "[", "]"), vec![], false);
    let up = "../../../../../../../../etc/passwd";
    for (key, value, loads) in [
        ("Config", json!(up), false),
        ("Config", json!("/etc/passwd"), false),
        ("Config", json!(format!("{canary}/secret")), false),
        ("Config", json!(""), false),
        ("Config", json!("."), false),
        ("Config", json!(null), false),
        ("Layers", json!(null), false),
        ("Layers", json!([]), false),
        ("Layers", json!([up]), false),
        ("Layers", json!(["/proc/self/environ"]), false),
        ("Layers", json!([image["Layers"][0], image["Layers"][0]]), false),
        ("RepoTags", json!(["../../../etc/passwd:1"]), false),
        ("RepoTags", json!(["-rf:1", "UPPER:1"]), false),
        ("RepoTags", json!(["a:b:c:d"]), false),
        ("RepoTags", json!([""]), true),
        ("RepoTags", json!([1]), false),
        ("RepoTags", json!(null), true),
    ] {
        let mut one = image.clone();
        one[key] = value.clone();
        raw(format!("{key} {value}"), &json!([one]).to_string(), vec![], loads);
    }
    let named = |key: &str, name: &str| {
        let mut one = image.clone();
        one[key] = if key == "Layers" { json!([name]) } else { json!(name) };
        json!([one]).to_string()
    };
    for (what, link, loads) in [
        ("a link out", symlink("l", format!("{canary}/secret")), false),
        ("a link up", symlink("l", format!("../../../..{canary}/secret")), false),
        ("a link to itself", symlink("l", "l"), false),
        ("a hard link out", hardlink("l", "/etc/passwd"), false),
        ("a fifo", entry(b'6', "l"), false),
        ("a directory", dir("l"), false),
        ("a link in", symlink("l", image["Layers"][0].as_str().unwrap_or_default()), true),
    ] {
        raw(format!("a layer that is {what}"), &named("Layers", "l"), vec![link.clone()], loads);
        raw(format!("a configuration that is {what}"), &named("Config", "l"), vec![link], false);
    }
    let list = |kind: Entry| archive(&[files.clone(), vec![kind]].concat());
    out.push(document("saved: the list is a link out", list(symlink("manifest.json", format!("{canary}/secret"))), false));
    out.push(document("saved: the list is a directory", list(dir("manifest.json")), false));
    out.push(document("saved: the list is a fifo", list(entry(b'6', "manifest.json")), false));
    out
}

fn layouts(layer: &[u8], canary: &str) -> Vec<Document> {
    let mut good = Layout::default();
    good.image("t", &[layer]);
    let mut out = Vec::new();
    for (name, text, loads) in [
        ("2.0.0", "{\"imageLayoutVersion\":\"2.0.0\"}", false),
        ("null", "null", false),
        ("empty", "", false),
        ("a number", "{\"imageLayoutVersion\":1}", false),
    ] {
        let mut layout = good.clone();
        layout.files.insert("oci-layout".into(), text.into());
        out.push(document(format!("layout {name}"), layout.tar(), loads));
    }
    let files = super::image::entries(&good.whole());
    let instead = |name: &str, with: Entry| {
        archive(&files.iter().map(|e| if e.name == name.as_bytes() { with.clone() } else { e.clone() }).collect::<Vec<_>>())
    };
    for (what, e) in [
        ("a link out", symlink("index.json", format!("{canary}/secret"))),
        ("a fifo", entry(b'6', "index.json")),
        ("a link to itself", symlink("index.json", "./index.json")),
    ] {
        out.push(document(format!("layout: the index is {what}"), instead("index.json", e), false));
    }
    let blob = good.files.keys().next().cloned().unwrap_or_default();
    out.push(document("layout: a blob is a link out", instead(&blob, symlink(&blob, format!("{canary}/secret"))), false));
    let wrong = Entry { data: b"other".to_vec(), ..file(&blob, "") };
    out.push(document("layout: a blob has other bytes", instead(&blob, wrong.clone()), false));
    out.push(document("layout: a blob twice", archive(&[files.clone(), vec![wrong]].concat()), false));
    out.push(document("layout: no blob", archive(&files.iter().filter(|e| e.name != blob.as_bytes()).cloned().collect::<Vec<_>>()), false));
    out.push(document("layout: nothing", archive(&[]), false));
    out.push(document("layout: no archive", b"no archive".to_vec(), false));
    out.push(document("layout: empty", Vec::new(), false));
    out
}
