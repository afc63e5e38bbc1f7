//! Runs the host's `git` over a repository that is not trusted.
//!
//! Nothing of the host's or the user's configuration is read. The repository's own must be, since it says how objects are
//! kept; so only plumbing runs that starts nothing, what could be started is switched off all the same, and neither a
//! protocol nor a fetch of missing objects is allowed. `safe.directory` is given: it guards those who run hooks.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::HistoryError;

/// A list of a million commits has less.
const STDOUT_MAX_BYTES: u64 = 1 << 30;
const SAID_CHARS: usize = 400;

const SETTINGS: [(&str, &str); 10] = [
    ("safe.directory", "*"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.pager", "cat"),
    ("core.sshCommand", "false"),
    ("core.useReplaceRefs", "true"),
    ("log.showSignature", "false"),
    ("credential.helper", ""),
    ("gpg.program", "false"),
];

/// The program, and the repository that it works on.
#[derive(Debug, Clone)]
pub(super) struct Git {
    program: PathBuf,
    path: std::ffi::OsString,
    dir: Option<PathBuf>,
}

impl Git {
    /// Looks for the program.
    pub(super) fn find(programs: &[PathBuf]) -> Result<Self, HistoryError> {
        let program = programs.iter().map(|d| d.join("git")).find(|p| p.is_file()).ok_or(HistoryError::NoGit)?;
        Ok(Self { program, path: std::env::join_paths(programs).unwrap_or_default(), dir: None })
    }

    /// Returns the same for a repository's git directory.
    pub(super) fn at(self, dir: PathBuf) -> Self {
        Self { dir: Some(dir), ..self }
    }

    /// Runs a command where the repository is found from `cwd`, and returns what it printed.
    pub(super) fn run_in(&self, doing: &'static str, cwd: &Path, args: &[&str]) -> Result<Vec<u8>, HistoryError> {
        let mut command = self.command(args);
        command.current_dir(cwd);
        output(doing, command)
    }

    /// Runs a command in the repository, and returns what it printed.
    pub(super) fn run(&self, doing: &'static str, args: &[&str]) -> Result<Vec<u8>, HistoryError> {
        output(doing, self.here(args))
    }

    /// Starts a command that is spoken with; what it complains of is lost.
    pub(super) fn start(&self, doing: &'static str, args: &[&str]) -> Result<Child, HistoryError> {
        let mut command = self.here(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(|source| HistoryError::Run { doing, source })
    }

    fn here(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        if let Some(dir) = &self.dir {
            command.current_dir(dir).env("GIT_DIR", dir);
        }
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().stdin(Stdio::null());
        command.envs([
            ("LC_ALL", "C"),
            ("HOME", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            // A list that allows nothing.
            ("GIT_ALLOW_PROTOCOL", "none"),
            ("GIT_PAGER", "cat"),
        ]);
        command.env("PATH", &self.path).env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
        for (n, (key, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        command
    }
}

fn output(doing: &'static str, mut command: Command) -> Result<Vec<u8>, HistoryError> {
    let failed = |source| HistoryError::Run { doing, source };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let complaints = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What is over the limit is read and dropped: a full pipe would hold git up.
        if let Some(mut from) = complaints {
            let _ = (&mut from).take(64 << 10).read_to_end(&mut said);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        said
    });
    let mut out = Vec::new();
    if let Some(from) = child.stdout.take() {
        from.take(STDOUT_MAX_BYTES).read_to_end(&mut out).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    let complaints = reader.join().unwrap_or_default();
    if status.success() { Ok(out) } else { Err(HistoryError::Refused { doing, said: said(&complaints) }) }
}

/// Returns what git said, fit to be shown: one line, no control characters, no advice.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("hint:"));
    let joined = lines.map(|l| l.trim_start_matches("fatal: ")).collect::<Vec<_>>().join("; ");
    let clean: String = joined.chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect();
    if clean.is_empty() { "nothing".into() } else { clean }
}
