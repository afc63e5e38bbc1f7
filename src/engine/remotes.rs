//! What a build takes from elsewhere: URLs and repositories, each asked once a build, with the caller's secrets and agent.
//!
//! The way there is [`crate::remote`]'s; here are what the build was given for it, and what the answers mean to a step's
//! key. Several platforms and steps share an answer: a tag that moves meanwhile does not make one build of two commits.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;

use super::Engine;
use super::error::{BuildError, chain};
use super::mounts::read_secret;
use super::request::{BuildRequest, SecretSource};
use crate::address::{CheckoutTime, GitAddress, Parts, redact};
use crate::digest::{Checksum, ContentDigest};
use crate::remote::{CheckedOut, Checkout, Commit, Download, Downloads, Git, GitAccess, RemoteError, Wanted};

/// The agent or key that git's ssh uses.
const SSH_ID: &str = "default";

/// When people are told of a transfer: the store may have it already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    AtOnce,
    WhenItTransfers,
}

/// An answer, once somebody has it; whoever comes meanwhile waits.
type Answer<T> = Arc<Mutex<Option<T>>>;

/// The ways outside, and what was learnt there.
pub(super) struct Remotes<'a> {
    engine: &'a Engine<'a>,
    request: &'a BuildRequest,
    downloads: Mutex<HashMap<String, Answer<Download>>>,
    commits: Mutex<HashMap<String, Answer<Commit>>>,
}

/// A file from a URL.
pub(super) struct Fetched {
    /// At its start.
    pub file: File,
    /// `Last-Modified`, in unix seconds.
    pub modified_secs: Option<i64>,
}

impl<'a> Remotes<'a> {
    pub fn new(engine: &'a Engine<'a>, request: &'a BuildRequest) -> Self {
        Self { engine, request, downloads: Mutex::default(), commits: Mutex::default() }
    }

    /// Returns what decides a step that takes a URL's content; none: only the server knows, and `ask` is false.
    pub fn url_content(&self, url: &str, checksum: Option<&Checksum>, ask: bool) -> Result<Option<ContentDigest>, BuildError> {
        let text = match checksum {
            Some(checksum) => checksum.to_string(),
            None if !ask => return Ok(None),
            None => self.resolve_url(url)?.digest.to_string(),
        };
        let mut h = blake3::Hasher::new_derive_key("plywood content of a remote file, v1");
        h.update(text.as_bytes());
        Ok(Some(ContentDigest::from_bytes(*h.finalize().as_bytes())))
    }

    /// Returns a URL's content.
    pub fn fetch_url(&self, url: &str, checksum: Option<&Checksum>) -> Result<Fetched, BuildError> {
        let known = match checksum {
            Some(_) => None,
            None => Some(self.resolve_url(url)?),
        };
        let (file, download) = self.transfer(url, Shown::WhenItTransfers, |downloads, wanted| match (checksum, known) {
            (Some(checksum), _) => downloads.open_pinned(wanted, checksum),
            (None, Some(known)) => Ok((downloads.open(wanted, &known)?, known)),
            (None, None) => unreachable!("what has no checksum was resolved"),
        })?;
        Ok(Fetched { file, modified_secs: download.modified_secs })
    }

    fn resolve_url(&self, url: &str) -> Result<Download, BuildError> {
        let answer = self.downloads.lock().unwrap_or_else(PoisonError::into_inner).entry(url.into()).or_default().clone();
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(download) = &*answer {
            return Ok(download.clone());
        }
        let download = self.transfer(url, Shown::AtOnce, |downloads, wanted| downloads.resolve(wanted))?;
        Ok(answer.insert(download).clone())
    }

    /// Does something with a URL, telling how far it is.
    fn transfer<T>(
        &self,
        url: &str,
        shown: Shown,
        work: impl FnOnce(&Downloads<'_>, &Wanted<'_>) -> crate::remote::Result<T>,
    ) -> Result<T, BuildError> {
        self.engine.go_on()?;
        self.may_ask(&redact(url))?;
        let authorization = self.authorization_for_url(url)?;
        let give_up = || self.engine.cancel.is_cancelled();
        let downloads =
            Downloads { client: self.engine.client, store: self.engine.store, give_up: &give_up, now_secs: self.engine.now_secs() };
        let progress = self.engine.progress;
        let task = OnceCell::new();
        let begin = || *task.get_or_init(|| progress.begin(format!("fetch {}", redact(url))));
        if shown == Shown::AtOnce {
            begin();
        }
        let watch = |done, total| progress.advance(begin(), done, total);
        let outcome = work(&downloads, &Wanted { url, authorization: authorization.as_deref(), checksum: None, watch: &watch });
        task.get().iter().for_each(|task| progress.end(**task));
        outcome.map_err(|e| {
            let known = downloads.last_known(url).ok().flatten();
            let error = build_error(&e);
            match (&e, known) {
                (RemoteError::Transfer { .. }, Some(digest)) => {
                    error.hint(format!("--checksum={digest}, which it gave last, makes the build independent of the network"))
                }
                _ => error,
            }
        })
    }

    /// Returns the commit that an address means; none: only the remote knows, and `ask` is false.
    pub fn commit(&self, address: &GitAddress, ask: bool) -> Result<Option<Commit>, BuildError> {
        let pinned = address.reference.as_deref().is_some_and(crate::address::is_commit) || address.fetch_by_commit;
        if !ask && !pinned {
            return Ok(None);
        }
        let name = format!("{}\n{:?}\n{:?}", address.remote, address.reference, address.checksum);
        let answer = self.commits.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone();
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commit) = &*answer {
            return Ok(Some(commit.clone()));
        }
        let title = (!pinned).then(|| format!("resolve {}", address.shown()));
        let commit = self.with_git(address, title, |git| git.resolve(address))?;
        Ok(Some(answer.insert(commit).clone()))
    }

    /// Returns what decides a step that takes a repository's files; none: as for [`Remotes::commit`].
    pub fn git_content(&self, address: &GitAddress, ask: bool) -> Result<Option<ContentDigest>, BuildError> {
        let Some(commit) = self.commit(address, ask)? else { return Ok(None) };
        let how = checkout_of(address, CheckoutTime::Checkout);
        let keep = how.keep_git_dir && address.subdir.is_empty();
        let mut h = blake3::Hasher::new_derive_key("plywood content of a repository, v1");
        let mut field = |text: &str| {
            h.update(&(text.len() as u64).to_le_bytes());
            h.update(text.as_bytes());
        };
        // With `.git` the ref and the address are part of the files.
        let kept = if keep {
            [&commit.object, commit.reference.as_deref().unwrap_or_default(), &address.shown()].join("\n")
        } else {
            String::new()
        };
        field(&commit.commit);
        field(&address.subdir);
        field(&kept);
        field(if how.submodules { "submodules" } else { "" });
        field(if how.time == CheckoutTime::Commit { "commit time" } else { "" });
        Ok(Some(ContentDigest::from_bytes(*h.finalize().as_bytes())))
    }

    /// Checks a repository out; `time` counts where the address says nothing.
    pub fn checkout(&self, address: &GitAddress, time: CheckoutTime) -> Result<CheckedOut, BuildError> {
        self.may_ask(&address.shown())?;
        let commit = self.commit(address, true)?.expect("the remote was asked");
        let title = Some(format!("check out {} {}", address.shown(), &commit.commit[..12]));
        self.with_git(address, title, |git| git.checkout(address, &commit, &checkout_of(address, time)))
    }

    /// Returns when the commit that an address means was made.
    pub fn commit_time(&self, address: &GitAddress) -> Result<i64, BuildError> {
        self.may_ask(&address.shown())?;
        let commit = self.commit(address, true)?.expect("the remote was asked");
        self.with_git(address, None, |git| git.commit_time(address, &commit))
    }

    fn with_git<T>(
        &self,
        address: &GitAddress,
        title: Option<String>,
        work: impl FnOnce(&Git<'_>) -> crate::remote::Result<T>,
    ) -> Result<T, BuildError> {
        self.engine.go_on()?;
        let access = self.access(address)?;
        let give_up = || self.engine.cancel.is_cancelled();
        let task = title.map(|title| self.engine.progress.begin(title));
        let outcome = work(&Git { store: self.engine.store, access: &access, give_up: &give_up });
        task.iter().for_each(|task| self.engine.progress.end(*task));
        outcome.map_err(|e| build_error(&e))
    }

    /// Fails where nobody is to be asked: for what a plan can't do without.
    fn may_ask(&self, shown: &str) -> Result<(), BuildError> {
        if self.request.asks() {
            return Ok(());
        }
        Err(BuildError::plain(format!("{shown} would have to be asked")).hint("--online lets the plan ask servers"))
    }

    fn access(&self, address: &GitAddress) -> Result<GitAccess, BuildError> {
        let given = self.request.ssh.iter().rev().find(|(id, _)| id == SSH_ID).map(|(_, paths)| paths.as_slice()).unwrap_or_default();
        let is_socket = |p: &&PathBuf| std::fs::metadata(p).is_ok_and(|m| m.file_type().is_socket());
        Ok(GitAccess {
            program_dirs: self.engine.host_path.clone(),
            network: self.engine.client.config().clone(),
            ssh_agent: given.iter().find(is_socket).cloned(),
            ssh_keys: given.iter().filter(|p| !is_socket(p)).cloned().collect(),
            known_hosts: self.request.known_hosts.clone(),
            authorization: self.authorization_for_git(address)?,
        })
    }

    /// BuildKit's secrets for repositories: the host's own before the general ones.
    fn authorization_for_git(&self, address: &GitAddress) -> Result<Option<String>, BuildError> {
        let Some(host) = Parts::of(&address.remote).filter(|p| p.scheme.starts_with("http")).map(|p| p.authority) else { return Ok(None) };
        let names =
            [format!("GIT_AUTH_HEADER.{host}"), format!("GIT_AUTH_TOKEN.{host}"), "GIT_AUTH_HEADER".into(), "GIT_AUTH_TOKEN".into()];
        for name in names {
            let Some(value) = self.secret(&name)? else { continue };
            if name.starts_with("GIT_AUTH_HEADER") {
                return Ok(Some(value));
            }
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{value}"));
            return Ok(Some(format!("basic {pair}")));
        }
        Ok(None)
    }

    /// BuildKit's secrets for URLs; the token counts where both are given.
    fn authorization_for_url(&self, url: &str) -> Result<Option<String>, BuildError> {
        let Some(host) = Parts::of(url).map(|p| p.host().to_string()) else { return Ok(None) };
        if let Some(token) = self.secret(&format!("HTTP_AUTH_TOKEN_{host}"))? {
            return Ok(Some(format!("Bearer {token}")));
        }
        self.secret(&format!("HTTP_AUTH_HEADER_{host}"))
    }

    fn secret(&self, name: &str) -> Result<Option<String>, BuildError> {
        let given = self.request.secrets.iter().rev().find(|s| s.id == name);
        let bytes = match given.map(|s| &s.source) {
            None => return Ok(None),
            Some(SecretSource::Value(bytes)) => bytes.clone(),
            Some(SecretSource::File(path)) => read_secret(path).map_err(|e| BuildError::caused(format!("reading secret `{name}`"), &e))?,
        };
        let text = String::from_utf8(bytes).ok().map(|t| t.trim_end_matches(['\r', '\n']).to_string());
        // Part of a header's line: anything else would be another header.
        match text.filter(|t| !t.chars().any(char::is_control)) {
            Some(text) => Ok(Some(text).filter(|t| !t.is_empty())),
            None => Err(BuildError::plain(format!("secret `{name}` is no single line of text, as a header needs it"))),
        }
    }
}

fn checkout_of(address: &GitAddress, time: CheckoutTime) -> Checkout {
    Checkout {
        keep_git_dir: address.keep_git_dir.unwrap_or(false),
        submodules: address.submodules.unwrap_or(true),
        time: address.mtime.unwrap_or(time),
    }
}

fn build_error(error: &RemoteError) -> BuildError {
    if matches!(error, RemoteError::Cancelled) {
        return BuildError::Cancelled;
    }
    let plain = BuildError::plain(chain(error)).advised(error);
    match error.hint() {
        Some(hint) => plain.hint(hint),
        None => plain,
    }
}
