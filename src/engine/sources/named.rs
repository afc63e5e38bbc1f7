//! What the value of `--build-context NAME=VALUE` means. Pure.

use std::path::PathBuf;

use crate::graph::{ImageSource, NamedContext};
use crate::image::reference::{Reference, ReferenceError};

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildContext {
    /// As the graph sees it.
    pub named: NamedContext,
    /// Where the files are; some exactly for [`NamedContext::Files`].
    pub files: Option<FilesSource>,
}

/// Where a context's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesSource {
    /// A local directory.
    Directory(PathBuf),
    /// A git or http(s) URL.
    Url(String),
}

/// A value that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum NamedError {
    #[error("the build context has an empty value")]
    Empty,
    #[error("`{0}` has no path")]
    NoPath(String),
    #[error("`{0}` names no programs: expected host:sh,ls,cat")]
    NoPrograms(String),
    #[error("the build context's image can't be used")]
    Reference(#[from] ReferenceError),
}

/// Parses `oci-layout://PATH[:TAG][@DIGEST]`, `docker-image://REFERENCE`, `host:NAME,NAME`, `target:STAGE`, a git or
/// http(s) URL, else a directory's path.
pub fn parse_build_context(value: &str) -> Result<BuildContext, NamedError> {
    let image = |source| Ok(BuildContext { named: NamedContext::Image(source), files: None });
    if value.is_empty() {
        return Err(NamedError::Empty);
    }
    if let Some(rest) = value.strip_prefix("oci-layout://").or_else(|| value.strip_prefix("oci-layout:")) {
        let (path, tag) = split_layout(rest);
        if path.is_empty() {
            return Err(NamedError::NoPath(value.into()));
        }
        return image(ImageSource::OciLayout { path: path.into(), tag: tag.into() });
    }
    let reference = ["docker-image://", "container-image://", "docker://"].into_iter().find_map(|p| value.strip_prefix(p));
    if let Some(reference) = reference {
        return image(ImageSource::Reference(Reference::parse(reference)?.tagged().to_string()));
    }
    if let Some(list) = value.strip_prefix("host:") {
        let programs: Vec<String> = list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(String::from).collect();
        if programs.is_empty() {
            return Err(NamedError::NoPrograms(value.into()));
        }
        return image(ImageSource::Host(programs));
    }
    if let Some(stage) = value.strip_prefix("target:") {
        return Ok(BuildContext { named: NamedContext::Stage(stage.into()), files: None });
    }
    let url = ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|p| value.starts_with(p));
    let files = if url { FilesSource::Url(value.into()) } else { FilesSource::Directory(value.into()) };
    Ok(BuildContext { named: NamedContext::Files, files: Some(files) })
}

/// Splits `PATH[:TAG][@DIGEST]`; a digest wins over a tag. A path's own colons stay with it when a `/` follows.
fn split_layout(rest: &str) -> (&str, &str) {
    let (rest, digest) = match rest.rsplit_once('@') {
        Some((path, digest)) if digest.starts_with("sha256:") => (path, Some(digest)),
        _ => (rest, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => (path, tag),
        Some((path, "")) => (path, "latest"),
        _ => (rest, "latest"),
    };
    (path, digest.unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_by_their_beginning() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layout = |path: &str, tag: &str| NamedContext::Image(ImageSource::OciLayout { path: path.into(), tag: tag.into() });
        let reference = |text: &str| NamedContext::Image(ImageSource::Reference(text.into()));
        for (value, want) in [
            ("oci-layout:///a/b", layout("/a/b", "latest")),
            ("oci-layout://./b:v1", layout("./b", "v1")),
            ("oci-layout:///a:b/c", layout("/a:b/c", "latest")),
            (&format!("oci-layout:///a/b@{digest}"), layout("/a/b", &digest)),
            (&format!("oci-layout:///a/b:v1@{digest}"), layout("/a/b", &digest)),
            ("docker-image://alpine", reference("docker.io/library/alpine:latest")),
            ("docker-image://localhost:5000/x:1", reference("localhost:5000/x:1")),
            ("host:sh, ls,,cat", NamedContext::Image(ImageSource::Host(vec!["sh".into(), "ls".into(), "cat".into()]))),
            ("target:base", NamedContext::Stage("base".into())),
            ("./dir", NamedContext::Files),
            ("https://example.test/x.git", NamedContext::Files),
        ] {
            let parsed = parse_build_context(value).unwrap();
            assert_eq!(parsed.named, want, "{value}");
            assert_eq!(parsed.files.is_some(), want == NamedContext::Files, "{value}");
        }
        assert_eq!(parse_build_context("./dir").unwrap().files, Some(FilesSource::Directory("./dir".into())));
        let git = "git@example.test:x/y";
        assert_eq!(parse_build_context(git).unwrap().files, Some(FilesSource::Url(git.into())));
        for value in ["", "oci-layout://", "oci-layout://:v1", "host:", "host: , ", "docker-image://A B"] {
            assert!(parse_build_context(value).is_err(), "{value}");
        }
    }
}
