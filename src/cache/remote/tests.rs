//! Objects as they are written and read, and what is refused.

use super::super::key::{KeyInputs, StepInputs, WorkdirInputs};
use super::super::state::StateId;
use super::inline::InlineRecord;
use super::*;
use crate::digest::Digest;
use crate::image::manifest::media;
use crate::image::platform::Platform;

fn inputs(path: &str) -> KeyInputs {
    let step = StepInputs::Workdir(WorkdirInputs { path: path.into(), user: String::new() });
    KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step }
}

fn shared(path: &str) -> SharedRecord {
    let content = ContentDigest::from_bytes([1; 32]);
    SharedRecord {
        record: Record::new(inputs(path), LayerId::Content(content), content, "WORKDIR", 0.25, 9),
        form: LayerForm {
            clamp_epoch: Some(5),
            diff_id: DiffId::from_bytes([2; 32]),
            tar_bytes: 1024,
            empty: false,
            compression: "gzip-6".into(),
        },
        blob: Descriptor::of(media::OCI_LAYER_GZIP, b"blob"),
    }
}

fn parse(key: &CacheKey, object: &Object) -> Result<SharedRecord, String> {
    let parts = Parts::parse(Kind::Record, &object.manifest()).map_err(|e| e.to_string())?;
    let body = parts.embedded.clone().unwrap();
    SharedRecord::parse(key, &parts, &body).map_err(|e| e.to_string())
}

#[test]
fn a_record_comes_back_in_one_piece() {
    let record = shared("/a");
    let object = record.to_object();
    assert_eq!(parse(&record.record.key, &object), Ok(record));
    // One text, so one digest, whoever writes it.
    assert_eq!(object.manifest(), shared("/a").to_object().manifest());
}

#[test]
fn what_is_not_the_record_of_the_key_is_refused() {
    let (a, b) = (shared("/a"), shared("/b"));
    let key = a.record.key;
    let other_layer = LayerId::Content(ContentDigest::from_bytes([9; 32]));
    let lies = [
        (b.clone(), "the record is of another step than"),
        // It claims the key, its inputs tell otherwise.
        (SharedRecord { record: Record { key, ..b.record.clone() }, ..b.clone() }, "the record is of another step than"),
        (SharedRecord { record: Record { layer: other_layer, ..a.record.clone() }, ..a.clone() }, "the record is of another step than"),
        (SharedRecord { blob: Descriptor::of("text/plain", b"x"), ..a.clone() }, "the record's blob has the media type `text/plain`"),
    ];
    for (lie, want) in lies {
        let got = parse(&key, &lie.to_object()).unwrap_err();
        assert!(got.starts_with(want), "{got}");
    }
    let no_blob = Object { blobs: Vec::new(), ..a.to_object() };
    assert_eq!(parse(&key, &no_blob), Err("the record has 0 blobs".into()));
    let no_record = Object { body: b"{}".to_vec(), ..a.to_object() };
    assert_eq!(parse(&key, &no_record), Err("the object's body is malformed".into()));
}

#[test]
fn a_manifest_that_lies_about_its_body_is_refused() {
    let object = shared("/a").to_object();
    let text = String::from_utf8(object.manifest()).unwrap();
    let other = Digest::of(b"other").to_string();
    let cases = [
        (text.replacen(&object.body_descriptor().digest.to_string(), &other, 1), "the object's body is not what its digest"),
        (text.replace("cache.record", "cache.places"), "the object is `application/vnd.plywood.cache.places.v1+json`, not a record"),
        (text.replacen('{', r#"{"config":{},"#, 1), "the object's manifest is malformed"),
        ("[]".into(), "the object's manifest is malformed"),
    ];
    for (text, want) in cases {
        let got = Parts::parse(Kind::Record, text.as_bytes()).unwrap_err().to_string();
        assert!(got.starts_with(want), "{got}");
    }
}

#[test]
fn a_large_body_is_a_blob_of_its_own() {
    let object = Object { kind: Kind::Places, body: vec![b' '; 2 << 20], blobs: Vec::new() };
    let parts = Parts::parse(Kind::Places, &object.manifest()).unwrap();
    assert_eq!((parts.embedded, parts.body, parts.blobs), (None, object.body_descriptor(), Vec::new()));
}

#[test]
fn places_come_back_with_their_lists() {
    let slot = Slot::new(inputs("/a"), vec!["a".into()]);
    let lists = vec![(ContentDigest::from_bytes([3; 32]), Descriptor::of("application/octet-stream", b"list"))];
    for places in [Places::default(), Places { slots: vec![Some(slot), None], lists }] {
        let object = places.to_object();
        let parts = Parts::parse(Kind::Places, &object.manifest()).unwrap();
        let body = parts.embedded.clone().unwrap();
        assert_eq!(Places::parse(&parts, &body).unwrap(), places);
    }
}

#[test]
fn a_tar_serves_its_own_clamp_and_later_ones() {
    let form = |clamp_epoch| LayerForm { clamp_epoch, ..shared("/a").form };
    for (own, wanted, serves) in [
        (None, None, true),
        (None, Some(5), false),
        (Some(5), Some(5), true),
        (Some(5), Some(4), false),
        (Some(5), Some(6), true),
        (Some(5), None, true),
    ] {
        assert_eq!(form(own).serves(wanted), serves, "{own:?} {wanted:?}");
    }
}

#[test]
fn an_image_carries_the_records_of_its_own_layers() {
    let SharedRecord { record, form, blob } = shared("/a");
    let one = InlineRecord { record: record.clone(), layer: 1, clamp_epoch: form.clamp_epoch, tar_bytes: 1024, empty: false };
    let lie = InlineRecord { record: Record { inputs: inputs("/b"), ..record.clone() }, ..one.clone() };
    let beyond = InlineRecord { layer: 2, ..one.clone() };
    let mut rest = serde_json::Map::new();
    inline::embed(&mut rest, vec![one, lie, beyond]);
    let diff_ids = [DiffId::from_bytes([8; 32]), form.diff_id];
    let layers = [Descriptor::of(media::OCI_LAYER_GZIP, b"base"), blob.clone()];
    let got = inline::extract(&rest, &diff_ids, &layers);
    let form = LayerForm { compression: "original".into(), ..form };
    assert_eq!(got, [SharedRecord { record: Record { cost_secs: 0.0, ..record }, form, blob }]);
    inline::embed(&mut rest, Vec::new());
    assert!(rest.is_empty());
}
