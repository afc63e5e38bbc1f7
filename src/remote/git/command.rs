//! Runs the host's `git` in an environment of ours.
//!
//! Nothing of the host's or the user's configuration is read: it may name programs. Ours goes in by variables
//! (`GIT_CONFIG_*`), which other users can't see, as they can arguments: there the remote's address is always `origin`, and
//! credentials are a header. A cancel kills git's process group.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use base64::Engine as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Git;
use crate::address::{GitAddress, Parts, redact};
use crate::remote::{RemoteError, Result};

/// What may be spoken, also by what git itself follows.
const PROTOCOLS: &str = "http:https:ssh:git";
/// Output of a command that is read into memory; more is cut off, and is an error.
const STDOUT_MAX_BYTES: u64 = 64 << 20;
/// How much of what git says is shown.
const SAID_CHARS: usize = 600;
const POLL: Duration = Duration::from_millis(50);

/// Faults of old commits that hurt nobody, and that many repositories have; all others are refused.
const HARMLESS: [&str; 9] = [
    "zeroPaddedFilemode",
    "zeroPaddedDate",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingNameBeforeEmail",
    "missingEmail",
    "badTimezone",
    "missingTaggerEntry",
    "badTagName",
];

/// Runs git for one remote.
pub(super) struct Runner<'a> {
    git: &'a Git<'a>,
    program: PathBuf,
    /// The remote, to be shown.
    pub remote: String,
    environment: Vec<(OsString, OsString)>,
}

/// Where a command works.
pub(super) struct Place<'p> {
    /// The current directory.
    cwd: &'p Path,
    git_dir: Option<&'p Path>,
    work_tree: Option<&'p Path>,
    index: Option<&'p Path>,
    /// Also a repository on this machine, one of ours.
    local: bool,
}

impl<'p> Place<'p> {
    /// In no repository; `cwd` is an empty directory.
    pub fn nowhere(cwd: &'p Path) -> Self {
        Self { cwd, git_dir: None, work_tree: None, index: None, local: false }
    }

    /// In a repository.
    pub fn repository(dir: &'p Path) -> Self {
        Self { git_dir: Some(dir), ..Self::nowhere(dir) }
    }

    /// In a repository, with a tree and an index of one's own.
    pub fn tree(dir: &'p Path, work_tree: &'p Path, index: &'p Path) -> Self {
        Self { cwd: work_tree, git_dir: Some(dir), work_tree: Some(work_tree), index: Some(index), local: false }
    }

    /// May fetch from one of our own repositories.
    pub fn local(self) -> Self {
        Self { local: true, ..self }
    }
}

impl<'a> Runner<'a> {
    /// Prepares to run git for `address`. Errors: git is not there, or ssh is asked for and no way to it given.
    pub fn new(git: &'a Git<'a>, address: &GitAddress) -> Result<Self> {
        let remote = address.shown();
        let program = git.access.program_dirs.iter().map(|d| d.join("git")).find(|p| p.is_file());
        let program = program.ok_or_else(|| RemoteError::NoGit { remote: remote.clone() })?;
        let environment = environment(git, address)?;
        Ok(Self { git, program, remote, environment })
    }

    /// Runs a command and returns what it printed.
    pub fn run(&self, doing: &'static str, args: &[&str], place: &Place<'_>) -> Result<Vec<u8>> {
        self.execute(doing, args, place, None)
    }

    /// Runs a command whose output goes to a file.
    pub fn run_into(&self, doing: &'static str, args: &[&str], place: &Place<'_>, file: File) -> Result<()> {
        self.execute(doing, args, place, Some(file)).map(drop)
    }

    fn execute(&self, doing: &'static str, args: &[&str], place: &Place<'_>, file: Option<File>) -> Result<Vec<u8>> {
        if (self.git.give_up)() {
            return Err(RemoteError::Cancelled);
        }
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.current_dir(place.cwd).env("GIT_CEILING_DIRECTORIES", place.cwd.parent().unwrap_or(place.cwd));
        let named = [("GIT_DIR", place.git_dir), ("GIT_WORK_TREE", place.work_tree), ("GIT_INDEX_FILE", place.index)];
        command.envs(named.into_iter().filter_map(|(name, path)| Some((name, path?))));
        command.env("GIT_ALLOW_PROTOCOL", if place.local { "file" } else { PROTOCOLS });
        let stdout = file.map_or_else(Stdio::piped, Stdio::from);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|source| RemoteError::StartGit { source })?;
        self.watch(doing, child)
    }

    /// Waits for git to end, and kills it when that is wished.
    fn watch(&self, doing: &'static str, mut child: Child) -> Result<Vec<u8>> {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let start = |source| RemoteError::StartGit { source };
        let (tell, told) = channel();
        let reader = |from: Option<Box<dyn Read + Send>>, limit: u64, tell: std::sync::mpsc::Sender<()>| {
            std::thread::Builder::new().name("git".into()).spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut from) = from {
                    // What is over the limit is read and dropped: a full pipe would hold git up.
                    let _ = (&mut from).take(limit).read_to_end(&mut bytes);
                    let _ = std::io::copy(&mut from, &mut std::io::sink());
                }
                drop(tell);
                bytes
            })
        };
        let out = reader(out.map(|o| Box::new(o) as Box<dyn Read + Send>), STDOUT_MAX_BYTES + 1, tell.clone()).map_err(start)?;
        let err = reader(err.map(|e| Box::new(e) as Box<dyn Read + Send>), 64 << 10, tell).map_err(start)?;
        let cancelled = loop {
            match told.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) if (self.git.give_up)() => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
                _ => {}
            }
        };
        if cancelled {
            // Its helpers are of its group; who is gone already is no fault.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = child.wait().map_err(start)?;
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if cancelled || (self.git.give_up)() {
            return Err(RemoteError::Cancelled);
        }
        match status.success() && out.len() as u64 <= STDOUT_MAX_BYTES {
            true => Ok(out),
            false => Err(RemoteError::Git { doing, remote: self.remote.clone(), said: said(&err) }),
        }
    }
}

/// Returns what git said, fit to be shown: no control characters, credentials or advice.
fn said(bytes: &[u8]) -> String {
    let text = redact(&String::from_utf8_lossy(bytes));
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("hint:") && !l.starts_with("warning: redirecting"));
    let joined = lines.collect::<Vec<_>>().join("; ");
    let clean: String = joined.chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect();
    if clean.is_empty() { "it said nothing".into() } else { clean }
}

fn environment(git: &Git<'_>, address: &GitAddress) -> Result<Vec<(OsString, OsString)>> {
    let access = git.access;
    let path = std::env::join_paths(&access.program_dirs).unwrap_or_default();
    let mut set: Vec<(OsString, OsString)> = vec![("PATH".into(), path)];
    let mut text = |name: &str, value: &OsStr| set.push((name.into(), value.into()));
    for (name, value) in [
        ("LC_ALL", "C"),
        ("HOME", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_LFS_SKIP_SMUDGE", "1"),
    ] {
        text(name, value.as_ref());
    }
    let network = &access.network;
    let no_proxy = network.no_proxy.join(",");
    for (name, value) in [("http_proxy", &network.http_proxy), ("https_proxy", &network.https_proxy)] {
        value.iter().for_each(|v| text(name, v.as_ref()));
    }
    text(
        "no_proxy",
        if no_proxy.is_empty() { "localhost,127.0.0.1,::1".into() } else { format!("{no_proxy},localhost,127.0.0.1,::1") }.as_ref(),
    );
    network.cert_file.iter().for_each(|p| text("GIT_SSL_CAINFO", p.as_os_str()));
    network.cert_dir.iter().for_each(|p| text("GIT_SSL_CAPATH", p.as_os_str()));
    let (url, header) = plain(address);
    if !url.contains("://") || url.starts_with("ssh://") {
        text("GIT_SSH_COMMAND", ssh(git, address)?.as_ref());
        access.ssh_agent.iter().for_each(|p| text("SSH_AUTH_SOCK", p.as_os_str()));
    }
    let mut config: Vec<(String, String)> = [
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        ("core.attributesFile", "/dev/null"),
        ("core.symlinks", "true"),
        ("core.autocrlf", "false"),
        ("core.protectNTFS", "true"),
        ("core.protectHFS", "true"),
        ("init.defaultBranch", "master"),
        ("submodule.recurse", "false"),
        ("fetch.recurseSubmodules", "false"),
        ("transfer.fsckObjects", "true"),
        ("transfer.bundleURI", "false"),
        ("credential.helper", ""),
        // Else what is small is unpacked, unsynced.
        ("fetch.unpackLimit", "1"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("pack.threads", "1"),
        ("advice.detachedHead", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "60"),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .into();
    config.extend(HARMLESS.iter().map(|fault| (format!("fetch.fsck.{fault}"), "ignore".to_string())));
    if let Some(header) = access.authorization.clone().or(header)
        && let Some(parts) = Parts::of(&url).filter(|p| p.scheme.starts_with("http"))
    {
        config.push((format!("http.{}://{}/.extraHeader", parts.scheme, parts.authority), format!("Authorization: {header}")));
    }
    config.push(("remote.origin.url".into(), url));
    set.push(("GIT_CONFIG_COUNT".into(), config.len().to_string().into()));
    for (n, (key, value)) in config.into_iter().enumerate() {
        set.push((format!("GIT_CONFIG_KEY_{n}").into(), key.into()));
        set.push((format!("GIT_CONFIG_VALUE_{n}").into(), value.into()));
    }
    Ok(set)
}

/// Returns the address that git gets, without credentials, and the header that they make. ssh's user is no credential.
fn plain(address: &GitAddress) -> (String, Option<String>) {
    let Some(parts) = Parts::of(&address.remote) else { return (address.remote.clone(), None) };
    if parts.scheme == "ssh" {
        let user = parts.credentials().map(|(user, _)| format!("{user}@")).unwrap_or_default();
        return (format!("ssh://{user}{}{}", parts.authority, parts.path), None);
    }
    let header = parts
        .credentials()
        .map(|(user, password)| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))));
    (format!("{}://{}{}", parts.scheme, parts.authority, parts.path), header)
}

/// Returns the header that an address's own credentials make.
pub(super) fn header_of(address: &GitAddress) -> Option<String> {
    plain(address).1
}

/// Returns how ssh is run: without the user's configuration, never asking. A host that is new is noted in the store, one
/// whose key changed is refused.
fn ssh(git: &Git<'_>, address: &GitAddress) -> Result<OsString> {
    let access = git.access;
    if access.ssh_agent.is_none() && access.ssh_keys.is_empty() {
        return Err(RemoteError::NoSsh { remote: address.shown() });
    }
    let noted = git.store.root().join("known_hosts");
    let files: Vec<String> = std::iter::once(&noted).chain(&access.known_hosts).map(|p| format!("\"{}\"", p.display())).collect();
    let mut command = String::from("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15");
    command.push_str(&format!(" -o StrictHostKeyChecking=accept-new -o {}", quoted(&format!("UserKnownHostsFile={}", files.join(" ")))));
    for key in &access.ssh_keys {
        command.push_str(&format!(" -o IdentitiesOnly=yes -i {}", quoted(&key.display().to_string())));
    }
    Ok(command.into())
}

/// Quotes a word for the shell that git runs ssh by.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_shown_without_advice_control_characters_and_credentials() {
        let text = b"hint: do this\nfatal: \x1b[31munable to access 'https://me:pw@h/x.git/': no\n\n";
        assert_eq!(said(text), "fatal: [31munable to access 'https://xxxxx:xxxxx@h/x.git/': no");
        assert_eq!(said(b""), "it said nothing");
    }

    #[test]
    fn credentials_become_a_header_and_leave_the_address() {
        let of = |text: &str| plain(&GitAddress::parse(text).unwrap().unwrap());
        assert_eq!(of("https://me:p%40w@h:8443/x.git"), ("https://h:8443/x.git".into(), Some("Basic bWU6cEB3".into())));
        assert_eq!(of("ssh://git:pw@h/x"), ("ssh://git@h/x".into(), None));
        assert_eq!(of("git@h:x/y"), ("git@h:x/y".into(), None));
        assert_eq!(quoted("a'b c"), "'a'\\''b c'");
    }
}
