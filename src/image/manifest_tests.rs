//! Tests of `manifest`: which documents are understood, which are refused and why.

use super::*;

fn hex(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

fn config() -> String {
    format!(r#"{{"mediaType":"{}","digest":"{}","size":7}}"#, media::OCI_CONFIG, hex('a'))
}

fn layer() -> String {
    format!(r#"{{"mediaType":"{}","digest":"{}","size":9}}"#, media::OCI_LAYER_GZIP, hex('b'))
}

/// `manifest`, `index`, or the error's variant.
fn kind(text: &str, announced: Option<&str>) -> String {
    match Document::parse(text.as_bytes(), announced) {
        Ok(Document::Manifest(_)) => "manifest".into(),
        Ok(Document::Index(_)) => "index".into(),
        Err(e) => format!("{e:?}").split([' ', '(', '{']).next().unwrap().to_string(),
    }
}

#[test]
fn a_document_has_one_meaning_or_none() {
    let (c, l) = (config(), layer());
    let m = media::OCI_MANIFEST;
    let i = media::OCI_INDEX;
    for (text, announced, want) in [
        (format!(r#"{{"schemaVersion":2,"config":{c},"layers":[{l}]}}"#), None, "manifest"),
        (format!(r#"{{"schemaVersion":2,"config":{c},"layers":[{l}]}}"#), Some(m), "manifest"),
        (format!(r#"{{"schemaVersion":2,"config":{c},"layers":[{l}]}}"#), Some(i), "Malformed"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{m}","config":{c},"layers":[]}}"#), Some("application/json"), "manifest"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{m}","config":{c},"layers":[]}}"#), Some(i), "MediaTypeDiffers"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{m}","config":{c},"layers":[]}}"#), Some(media::DOCKER_MANIFEST), "MediaTypeDiffers"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{c},"layers":[]}}"#, media::DOCKER_MANIFEST), None, "manifest"),
        (r#"{"schemaVersion":2,"manifests":[]}"#.into(), None, "index"),
        (r#"{"schemaVersion":2,"manifests":[]}"#.into(), Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), "index"),
        (format!(r#"{{"schemaVersion":2,"manifests":[],"config":{c},"layers":[]}}"#), None, "Ambiguous"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{i}","manifests":[],"layers":[]}}"#), None, "Ambiguous"),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{m}","manifests":[],"config":{c},"layers":[]}}"#), None, "Ambiguous"),
        (format!(r#"{{"schemaVersion":2,"schemaVersion":2,"config":{c},"layers":[]}}"#), None, "Malformed"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "Unsupported"),
        (r#"{"schemaVersion":2}"#.into(), None, "Unsupported"),
        (r#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#.into(), None, "Unsupported"),
        ("[]".into(), None, "Unsupported"),
        ("<html>".into(), Some("text/html"), "Malformed"),
        (r#"{"schemaVersion":2,"config":{},"layers":[]}"#.into(), None, "Malformed"),
    ] {
        let text = text.replace("\"config\":{},", "\"config\":{\"digest\":1},");
        // An index announced for what is shaped as a manifest is caught by its keys.
        let want = if announced == Some(i) && want == "Malformed" { "Ambiguous" } else { want };
        assert_eq!(kind(&text, announced), want, "{text} announced as {announced:?}");
    }
}

#[test]
fn a_bad_digest_or_size_is_refused_wherever_it_stands() {
    let bad = [
        "sha256:../../x".to_string(),
        "sha256:".into(),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha512:{}", "a".repeat(128)),
        format!("sha256:{}/..", "a".repeat(61)),
        String::new(),
    ];
    for digest in bad {
        let d = format!(r#"{{"mediaType":"{}","digest":"{digest}","size":1}}"#, media::OCI_LAYER);
        for text in [
            format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{d}]}}"#, config()),
            format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#),
        ] {
            assert!(Document::parse(text.as_bytes(), None).is_err(), "{text}");
        }
    }
    for size in ["-1", "1e30", "\"7\"", "18446744073709551616"] {
        let d = format!(r#"{{"mediaType":"x","digest":"{}","size":{size}}}"#, hex('a'));
        assert_eq!(kind(&format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#), None), "Malformed", "{size}");
    }
    let big = vec![b' '; DOCUMENT_MAX_BYTES as usize + 1];
    assert!(matches!(Document::parse(&big, None), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn embedded_data_must_be_what_the_descriptor_names() {
    let right = Descriptor::of("x/y", b"hello");
    for (data, digest, size, good) in [
        ("aGVsbG8=", right.digest.to_string(), 5, true),
        ("aGVsbG8=", right.digest.to_string(), 6, false),
        ("aGVsbG8=", hex('a'), 5, false),
        ("!!", right.digest.to_string(), 5, false),
    ] {
        let text =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x/y","digest":"{digest}","size":{size},"data":"{data}"}}]}}"#);
        assert_eq!(Document::parse(text.as_bytes(), None).is_ok(), good, "{text}");
    }
}

#[test]
fn what_is_written_is_read_back_and_its_text_is_stable() {
    let mut layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(b"l"), 1);
    for k in ["z", "a", "m", "b", "y", "c"] {
        layer.annotations.insert(k.into(), k.to_uppercase());
    }
    let manifest =
        Manifest { media_type: media::OCI_MANIFEST.into(), config: Descriptor::of(media::OCI_CONFIG, b"{}"), layers: vec![layer] };
    let text = manifest.to_json();
    assert_eq!(Document::parse(&text, Some(media::OCI_MANIFEST)).unwrap(), Document::Manifest(manifest.clone()));
    assert_eq!(
        String::from_utf8(text.clone()).unwrap(),
        format!(
            concat!(
                r#"{{"config":{{"digest":"{}","mediaType":"application/vnd.oci.image.config.v1+json","size":2}},"#,
                r#""layers":[{{"annotations":{{"a":"A","b":"B","c":"C","m":"M","y":"Y","z":"Z"}},"digest":"{}","#,
                r#""mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":1}}],"#,
                r#""mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}}"#
            ),
            Digest::of(b"{}"),
            Digest::of(b"l")
        )
    );
    let mut entry = Descriptor::of(media::OCI_MANIFEST, &text);
    entry.platform = Some(Platform::new("linux", "arm", "v6"));
    let index = Index { media_type: media::OCI_INDEX.into(), manifests: vec![entry] };
    assert_eq!(Document::parse(&index.to_json(), None).unwrap(), Document::Index(index));
}

#[test]
fn artifacts_are_no_images() {
    let mut manifest = Manifest {
        media_type: media::OCI_MANIFEST.into(),
        config: Descriptor::of(media::OCI_CONFIG, b"{}"),
        layers: vec![Descriptor::of(media::OCI_LAYER_ZSTD, b""), Descriptor::of(media::DOCKER_LAYER_GZIP, b"")],
    };
    assert!(manifest.require_layers().is_ok());
    manifest.layers.push(Descriptor::of("application/vnd.in-toto+json", b""));
    assert!(matches!(manifest.require_layers(), Err(ManifestError::NoLayer(t)) if t == "application/vnd.in-toto+json"));
}
