//! `ply import`: a root file system's tar becomes an image of one layer.
//!
//! The tar is stored plain, so its digest is the diff ID; an export compresses it. It is checked to be a tar from
//! its first header to its last, so that the mistake is told here and not by the first build that uses it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use crate::digest::{DiffId, Digest};
use crate::image::config::{Empty, History, ImageConfig, RootFs, RunConfig};
use crate::image::manifest::{Descriptor, media};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::layer::{self, LayerError, Limits, TarReader};
use crate::store::StoreError;

use super::keep::{self, Incoming};
use super::{SourceError, Sources, Until};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is imported, besides the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The image's name.
    pub name: Option<String>,
    /// `--change`: instructions such as `CMD ["sh"]` or `ENV A=b`.
    pub changes: Vec<String>,
    /// `--message`: the history's comment.
    pub message: Option<String>,
    /// What it is for.
    pub platform: Platform,
}

impl Sources<'_> {
    /// Stores a tar (compressed or not) as an image and returns its id.
    pub fn import(&self, reader: impl Read + Send, request: &ImportRequest) -> Result<Digest, SourceError> {
        let name = request.name.as_deref().map(Reference::parse).transpose()?.map(|r| r.tagged().to_string());
        let run = run_config(&request.changes)?;
        let failed = |source| SourceError::Archive { source: LayerError::Read { source } };
        let (_, tar) = layer::decompress(Until { inner: reader, progress: self.progress }, Limits::default().max_bytes).map_err(failed)?;
        let (digest, size) = self.store.put_blob(&mut Marked(tar), None).map_err(read_failure)?;
        if let Err(e) = self.check_tar(&digest) {
            self.store.discard_blob(&digest)?;
            return Err(e);
        }
        let diff_id = DiffId::from_bytes(*digest.as_bytes());
        let descriptor = Descriptor::new(media::OCI_LAYER, digest, size);
        keep::note_blob(self, &diff_id, &descriptor, "none")?;
        let config = config(request, run, diff_id, self.policy.now_secs).to_json();
        let incoming = Incoming {
            config: &config,
            manifest: None,
            platform: request.platform.clone(),
            layers: vec![(diff_id, descriptor)],
            name: name.as_deref().unwrap_or("import"),
        };
        let gone = |d: &Descriptor| Err(SourceError::MissingBlob { origin: "the import".into(), what: "the layer", digest: d.digest });
        let image = keep::keep(self, &incoming, 1, &gone)?;
        if let Some(name) = name {
            self.store.tag(&name, &image)?;
        }
        Ok(image)
    }

    /// Walks over the headers.
    fn check_tar(&self, digest: &Digest) -> Result<(), SourceError> {
        let gone = || SourceError::MissingBlob { origin: "the import".into(), what: "the layer", digest: *digest };
        let file: File = self.store.open_blob(digest)?.ok_or_else(gone)?;
        let failed = |source| SourceError::Archive { source };
        let mut archive = TarReader::new(file);
        let mut entries = 0_u64;
        while archive.next_entry().map_err(failed)?.is_some() {
            archive.seek_over().map_err(failed)?;
            entries += 1;
        }
        match entries {
            0 => Err(SourceError::Archive { source: LayerError::Malformed { offset: 0, what: "it has no entry" } }),
            _ => Ok(()),
        }
    }
}

/// Marks the errors of what is read, so that they can be told from those of the store that reads it.
struct Marked<R>(R);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mark(std::io::Error);

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|e| if e.kind() == std::io::ErrorKind::Interrupted { e } else { std::io::Error::other(Mark(e)) })
    }
}

fn read_failure(error: StoreError) -> SourceError {
    match error {
        StoreError::Io { source, .. } if source.get_ref().is_some_and(|e| e.is::<Mark>()) => {
            SourceError::Archive { source: LayerError::Read { source } }
        }
        other => other.into(),
    }
}

fn config(request: &ImportRequest, run: RunConfig, diff_id: DiffId, now_secs: i64) -> ImageConfig {
    let created = jiff::Timestamp::from_second(now_secs).ok().map(|t| t.to_string());
    let history =
        History { created: created.clone(), comment: request.message.clone(), created_by: "ply import".into(), ..History::default() };
    ImageConfig {
        created,
        architecture: request.platform.architecture.clone(),
        os: request.platform.os.clone(),
        variant: (!request.platform.variant.is_empty()).then(|| request.platform.variant.clone()),
        config: run,
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        history: vec![history],
        ..ImageConfig::default()
    }
}

/// Applies the changes to what an import starts from: a PATH, and a shell as the command.
fn run_config(changes: &[String]) -> Result<RunConfig, SourceError> {
    let mut run = RunConfig { env: vec![PATH.into()], ..RunConfig::default() };
    for change in changes {
        apply(&mut run, change.trim()).ok_or_else(|| SourceError::Change(change.chars().take(200).collect()))?;
    }
    if run.cmd.is_none() && run.entrypoint.is_none() {
        run.cmd = Some(vec!["/bin/sh".into()]);
    }
    Ok(run)
}

/// Applies one instruction of those that only touch the configuration; none: not understood.
fn apply(run: &mut RunConfig, change: &str) -> Option<()> {
    let (keyword, rest) = change.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    match keyword.to_ascii_uppercase().as_str() {
        "CMD" => run.cmd = Some(command(rest)),
        "ENTRYPOINT" => run.entrypoint = Some(command(rest)),
        "USER" => run.user = rest.into(),
        "WORKDIR" if rest.starts_with('/') => run.working_dir = rest.into(),
        "STOPSIGNAL" => run.stop_signal = Some(rest.into()),
        "ENV" => {
            for (key, value) in pairs(rest)? {
                run.env.retain(|e| e.split('=').next() != Some(&key));
                run.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => run.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            let port = |p: &str| if p.contains('/') { p.to_string() } else { format!("{p}/tcp") };
            run.exposed_ports.extend(rest.split_whitespace().map(|p| (port(p), Empty {})));
        }
        "VOLUME" => {
            let list = serde_json::from_str(rest).unwrap_or_else(|_| rest.split_whitespace().map(String::from).collect::<Vec<_>>());
            run.volumes.extend(list.into_iter().map(|v| (v, Empty {})));
        }
        _ => return None,
    }
    Some(())
}

/// The JSON form is the arguments; the other a shell's.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into(), text.into()])
}

/// Parses `K=V K="V W"`, or one `K V`.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        out.insert(key.to_string(), value.trim().to_string());
        return Some(out);
    }
    let mut rest = text;
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=')?;
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => tail.split_once(char::is_whitespace).unwrap_or((tail, "")),
        };
        out.insert(key.to_string(), value.to_string());
        rest = tail.trim_start();
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_applied_as_instructions() {
        let changes = [
            r#"CMD ["/srv", "x"]"#,
            "env A=1 B=\"two words\"",
            "ENV PATH /bin",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/a b\"]",
            "WORKDIR /w",
            "USER u",
            "LABEL k=v",
        ];
        let run = run_config(&changes.map(String::from)).unwrap();
        let want = RunConfig {
            cmd: Some(vec!["/srv".into(), "x".into()]),
            env: vec!["A=1".into(), "B=two words".into(), "PATH=/bin".into()],
            exposed_ports: BTreeMap::from([("53/udp".into(), Empty {}), ("80/tcp".into(), Empty {})]),
            volumes: BTreeMap::from([("/a b".into(), Empty {})]),
            working_dir: "/w".into(),
            user: "u".into(),
            labels: BTreeMap::from([("k".into(), "v".into())]),
            ..RunConfig::default()
        };
        assert_eq!(run, want);
        for change in ["RUN x", "CMD", "ENV A", "ENV =x", "WORKDIR rel", "", "ENV A=1 B"] {
            assert!(run_config(&[change.to_string()]).is_err(), "{change}");
        }
    }
}
