//! Contexts and Dockerfiles that come from a URL, and the times that `SOURCE_DATE_EPOCH` takes from them.
//!
//! A git address is a tree of files. Another URL is a tar, unpacked, or else the Dockerfile itself; a *named* context that
//! is no repository is a directory with one file, `context`, also when that is a tar (BuildKit's rule). A named context is
//! fetched when a step reads it, the main one always: it holds the Dockerfile.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::unix::fs::PermissionsExt as _;

use super::{Inputs, Opened, context_error, is_archive, read_dockerfile};
use crate::address::{CheckoutTime, GitAddress, is_http, redact};
use crate::context::{Context, ContextError, DockerfileText};
use crate::engine::error::BuildError;
use crate::engine::request::{BuildRequest, DockerfileSource};
use crate::graph::{CopySource, EpochSource};
use crate::layer::{self, EntryKind, Limits, TarReader};
use crate::path::{Time, set_times};

/// What a download is called in a context.
const CONTEXT_FILE: &str = "context";
/// BuildKit's mode of a download.
const DOWNLOAD_MODE: u32 = 0o600;
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What a context has a time from.
pub(super) enum Dated {
    /// This moment, in unix seconds: a commit's, or `Last-Modified`.
    At(i64),
    /// The newest file of this archive, if it is one.
    Archive(File),
}

impl Inputs<'_> {
    /// Opens the main context at a URL.
    pub(super) fn open_main_url(&mut self, request: &BuildRequest, url: &str, stdin: &mut dyn Read) -> Result<DockerfileText, BuildError> {
        let shown = redact(url);
        let git = GitAddress::parse_context(url).map_err(BuildError::plain)?;
        let (context, opened) = match git {
            Some(mut address) => {
                if request.build_args.get(KEEP_GIT_DIR).is_some_and(|v| is_true(v)) {
                    address.keep_git_dir = Some(true);
                }
                self.check_out(&address, request, "the build context")?
            }
            None if is_http(url) => {
                let fetched = self.remotes.fetch_url(url, None)?;
                let (mut file, modified) = (fetched.file, fetched.modified_secs);
                let io = |e: std::io::Error| BuildError::caused(format!("reading {shown}"), &e);
                if is_archive(&mut file).map_err(io)? {
                    let dated = match modified {
                        Some(at) => Dated::At(at),
                        None => Dated::Archive(file.try_clone().map_err(io)?),
                    };
                    let staging = self.engine.store.stage()?;
                    let input = self.engine.cancel.reading(file);
                    let context = Context::from_tar(input, staging.path(), "the build context").map_err(|e| context_error(&shown, &e))?;
                    (context, Kept { staging: Box::new(staging), dated })
                } else {
                    // The content is the Dockerfile, whatever -f says, unless that comes from elsewhere.
                    let bytes = read_dockerfile(&mut file, &shown)?;
                    file.rewind().map_err(io)?;
                    let (context, kept) = self.one_file(file, modified, "the build context")?;
                    let own = DockerfileText { name: shown.clone(), bytes, ignore_file: None };
                    let text = match self.dockerfile_from_elsewhere(request, &context, stdin)? {
                        Some(text) => text,
                        None => own,
                    };
                    self.keep(None, context, Some(kept))?;
                    return Ok(text);
                }
            }
            None => {
                let error =
                    BuildError::plain(format!("the context `{shown}` is neither a directory nor the address of a repository or file"));
                return Err(error.hint("git://, ssh://, git@HOST:PATH, http:// and https:// are known"));
            }
        };
        let text = match (self.dockerfile_from_elsewhere(request, &context, stdin)?, &request.dockerfile) {
            (Some(text), _) => Ok(text),
            (None, DockerfileSource::Path(path)) => context.dockerfile(&path.to_string_lossy()),
            (None, _) => context.default_dockerfile(),
        };
        let text = text.map_err(|e| context_error(&shown, &e))?;
        self.keep(None, context, Some(opened))?;
        Ok(text)
    }

    /// Reads a Dockerfile that is not in a context at a URL: standard input's, a URL's, or this host's by an absolute path.
    fn dockerfile_from_elsewhere(
        &self,
        request: &BuildRequest,
        context: &Context,
        stdin: &mut dyn Read,
    ) -> Result<Option<DockerfileText>, BuildError> {
        match &request.dockerfile {
            DockerfileSource::Stdin => Ok(Some(DockerfileText::from_stdin(read_dockerfile(stdin, "standard input")?))),
            DockerfileSource::Url(url) => self.dockerfile_at_url(url).map(Some),
            DockerfileSource::Path(path) if path.is_absolute() => {
                context.dockerfile_on_host(path).map(Some).map_err(|e: ContextError| context_error("", &e))
            }
            DockerfileSource::Path(_) | DockerfileSource::Default => Ok(None),
        }
    }

    /// Fetches a Dockerfile.
    pub(super) fn dockerfile_at_url(&self, url: &str) -> Result<DockerfileText, BuildError> {
        let mut file = self.remotes.fetch_url(url, None)?.file;
        let name = redact(url);
        Ok(DockerfileText { bytes: read_dockerfile(&mut file, &name)?, name, ignore_file: None })
    }

    /// Opens the named contexts at URLs that these steps read, those not opened yet.
    pub(super) fn open_named_urls<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
        request: &BuildRequest,
    ) -> Result<(), BuildError> {
        for name in names {
            let key = Some(name.to_string());
            let Some(url) = self.named_urls.get(name).filter(|_| !self.contexts.contains_key(&key)).cloned() else { continue };
            let doing = format!("--build-context {name}");
            let shown = format!("the context `{name}`");
            let (context, kept) = match GitAddress::parse(&url).map_err(|e| BuildError::plain(format!("{doing}: {e}")))? {
                Some(address) => self.check_out(&address, request, &shown)?,
                None => {
                    let fetched = self.remotes.fetch_url(&url, None)?;
                    self.one_file(fetched.file, fetched.modified_secs, &shown)?
                }
            };
            let rules = context.ignore_rules(None).map_err(|e| context_error(&doing, &e))?;
            self.keep(key, context.with_ignore(rules), Some(kept))?;
        }
        Ok(())
    }

    fn check_out(&self, address: &GitAddress, request: &BuildRequest, name: &str) -> Result<(Context, Kept), BuildError> {
        let given = request.build_args.get(EPOCH).is_some_and(|v| !v.is_empty());
        let time = if given { CheckoutTime::Commit } else { CheckoutTime::Checkout };
        let checkout = self.remotes.checkout(address, time)?;
        let context = Context::open_directory(&checkout.directory, name).map_err(|e| context_error(&address.shown(), &e))?;
        let dated = Dated::At(checkout.committed_secs);
        Ok((context, Kept { staging: Box::new(checkout), dated }))
    }

    /// Makes a directory with a download in it.
    fn one_file(&self, mut file: File, modified: Option<i64>, name: &str) -> Result<(Context, Kept), BuildError> {
        let staging = self.engine.store.stage()?;
        let io = |e: std::io::Error| BuildError::caused("writing a download", &e);
        let mut copy = File::create_new(staging.path().join(CONTEXT_FILE)).map_err(io)?;
        std::io::copy(&mut self.engine.cancel.reading(&mut file), &mut copy).map_err(io)?;
        copy.set_permissions(std::fs::Permissions::from_mode(DOWNLOAD_MODE)).map_err(io)?;
        set_times(&copy, Time { secs: modified.unwrap_or(0), nanos: 0 }).map_err(|e| io(e.into()))?;
        file.rewind().map_err(io)?;
        let dated = modified.map_or(Dated::Archive(file), Dated::At);
        let context = Context::open_directory(staging.path(), name).map_err(|e| context_error("", &e))?;
        Ok((context, Kept { staging: Box::new(staging), dated }))
    }

    /// Finds out what time `SOURCE_DATE_EPOCH` leads to, in unix seconds; none: what it names has none.
    pub(super) fn find_epoch(&mut self, source: &EpochSource, request: &BuildRequest) -> Result<Option<i64>, BuildError> {
        let key = match source {
            EpochSource::Context => None,
            EpochSource::Named(name) => {
                self.open_named_urls([name.as_str()], request)?;
                Some(name.clone())
            }
            EpochSource::Remote(CopySource::Git(address, _), _) => return self.remotes.commit_time(address).map(Some),
            EpochSource::Remote(source, checksum) => {
                let fetched = self.remotes.fetch_url(source.text(), checksum.as_ref())?;
                // A date is the server's to change; what is pinned has the archive's.
                return match fetched.modified_secs.filter(|_| checksum.is_none()) {
                    Some(at) => Ok(Some(at)),
                    None => newest_file(fetched.file),
                };
            }
        };
        match self.contexts.get(&key).and_then(|o: &Opened| o.kept.as_ref()).map(|k| &k.dated) {
            None => Ok(None),
            Some(Dated::At(at)) => Ok(Some(*at)),
            Some(Dated::Archive(file)) => newest_file(file.try_clone().map_err(|e| BuildError::caused("reading an archive", &e))?),
        }
    }
}

/// What a context at a URL needs for as long as it is read.
pub(super) struct Kept {
    #[allow(dead_code)] // held, never read
    pub staging: Box<dyn std::any::Any + Send + Sync>,
    pub dated: Dated,
}

/// Returns the time of an archive's newest regular file; none: it is no archive, or has no such file.
fn newest_file(mut file: File) -> Result<Option<i64>, BuildError> {
    let failed = |e: &(dyn std::error::Error + 'static)| BuildError::caused("reading an archive", e);
    file.rewind().map_err(|e| failed(&e))?;
    if !is_archive(&mut file).map_err(|e| failed(&e))? {
        return Ok(None);
    }
    let (_, plain) = layer::decompress(file, Limits::default().max_bytes).map_err(|e| failed(&e))?;
    let mut reader = TarReader::new(plain);
    let mut newest = None;
    while let Some(entry) = reader.next_entry().map_err(|e| failed(&e))? {
        if entry.kind == EntryKind::File {
            newest = newest.max(Some(entry.mtime.secs));
        }
    }
    Ok(newest)
}

/// Go's `strconv.ParseBool`; what is neither counts as not given.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
