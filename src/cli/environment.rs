//! The process's surroundings, gathered once: variables, directory, user, clock, terminals.
//!
//! The only reader of environment variables and of the clock. Everything below `cli` gets plain values made
//! from this one, so that a test can make a whole surrounding by hand.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What surrounds this run of the program.
#[derive(Debug, Clone)]
pub struct Environment {
    /// All variables, as they came.
    pub variables: BTreeMap<OsString, OsString>,
    /// The working directory; relative paths of flags start here.
    pub directory: PathBuf,
    /// Whether the program began as root, before it entered any namespace.
    pub root: bool,
    /// Seconds since 1970 at the start.
    pub now_secs: i64,
    /// Which of the standard streams are terminals.
    pub terminals: Terminals,
}

/// Which standard streams are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Terminals {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// When text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Colour {
    Always,
    Never,
    /// Where the stream is a terminal.
    Terminal,
}

impl Environment {
    /// Reads the process's surroundings.
    pub fn gather() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            root: rustix::process::geteuid().is_root(),
            now_secs: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX)),
            terminals: Terminals {
                stdin: std::io::stdin().is_terminal(),
                stdout: std::io::stdout().is_terminal(),
                stderr: std::io::stderr().is_terminal(),
            },
        }
    }

    /// Returns a variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// Returns a variable's text, empty or not; none where it is unset or not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name)).and_then(|v| v.to_str())
    }

    /// Returns a variable that holds an absolute path; others don't count (XDG base directory specification).
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }

    /// Returns the caller's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME")
    }

    /// Returns the store's directory: `given`, else `PLY_STORE`, else `/var/lib/plywood` for root and
    /// `$XDG_DATA_HOME/plywood` (`~/.local/share/plywood`) for others. None without a home directory.
    pub fn store(&self, given: Option<&PathBuf>) -> Option<PathBuf> {
        if let Some(dir) = given.cloned().or_else(|| self.variable("PLY_STORE").map(PathBuf::from)) {
            return Some(self.directory.join(dir));
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/plywood"));
        }
        let data = self.absolute("XDG_DATA_HOME").or_else(|| self.home().map(|h| h.join(".local/share")))?;
        Some(data.join("plywood"))
    }

    /// Returns where registry credentials may stand, in the order in which they are asked: docker's file, then podman's.
    pub fn credential_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        files.extend(self.variable("REGISTRY_AUTH_FILE").map(|f| self.directory.join(f)));
        files.extend(self.docker_config());
        files.extend(self.absolute("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")));
        files.extend(self.config_home().map(|d| d.join("containers/auth.json")));
        files
    }

    /// Returns the directory of the caller's configuration: `$XDG_CONFIG_HOME`, else `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        self.absolute("XDG_CONFIG_HOME").or_else(|| self.home().map(|h| h.join(".config")))
    }

    /// Returns docker's configuration file.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let dir = self.variable("DOCKER_CONFIG").map(|d| self.directory.join(d)).or_else(|| self.home().map(|h| h.join(".docker")));
        dir.map(|d| d.join("config.json"))
    }

    /// Returns the proxy variables that are set (`HTTPS_PROXY=...`), both spellings.
    pub fn proxies(&self) -> BTreeMap<String, String> {
        ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"]
            .iter()
            .flat_map(|n| [(*n).to_owned(), n.to_lowercase()])
            .filter_map(|n| self.text(&n).filter(|v| !v.is_empty()).map(|v| (n.clone(), v.to_owned())))
            .collect()
    }

    /// Returns when text is coloured: `NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`.
    pub fn colour(&self) -> Colour {
        if self.variable("NO_COLOR").is_some() || self.text("TERM") == Some("dumb") {
            Colour::Never
        } else if self.variable("CLICOLOR_FORCE").is_some_and(|v| v != "0") {
            Colour::Always
        } else {
            Colour::Terminal
        }
    }

    /// Returns whether a live display makes sense on standard error.
    pub fn can_redraw(&self) -> bool {
        self.terminals.stderr && self.text("TERM") != Some("dumb") && self.variable("CI").is_none_or(|v| v == "false" || v == "0")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a surrounding with these variables and nothing else.
    pub(crate) fn with(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            directory: "/work".into(),
            root: false,
            now_secs: 1_700_000_000,
            terminals: Terminals::default(),
        }
    }

    #[test]
    fn the_store_is_where_it_was_said_to_be() {
        let home = &[("HOME", "/home/a")];
        let cases: &[(Environment, Option<&str>, Option<&str>)] = &[
            (with(home), None, Some("/home/a/.local/share/plywood")),
            (with(home), Some("s"), Some("/work/s")),
            (with(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), None, Some("/d/plywood")),
            (with(&[("HOME", "/h"), ("XDG_DATA_HOME", "relative")]), None, Some("/h/.local/share/plywood")),
            (with(&[("PLY_STORE", "x"), ("HOME", "/h")]), None, Some("/work/x")),
            (with(&[("PLY_STORE", ""), ("HOME", "/h")]), None, Some("/h/.local/share/plywood")),
            (with(&[]), None, None),
            (Environment { root: true, ..with(home) }, None, Some("/var/lib/plywood")),
            (Environment { root: true, ..with(&[("PLY_STORE", "/x")]) }, None, Some("/x")),
        ];
        for (env, given, want) in cases {
            assert_eq!(env.store(given.map(PathBuf::from).as_ref()), want.map(PathBuf::from), "{env:?}");
        }
    }

    #[test]
    fn colour_follows_the_variables() {
        let cases: &[(&[(&str, &str)], Colour)] = &[
            (&[], Colour::Terminal),
            (&[("NO_COLOR", "1")], Colour::Never),
            (&[("NO_COLOR", "")], Colour::Terminal),
            (&[("CLICOLOR_FORCE", "1")], Colour::Always),
            (&[("CLICOLOR_FORCE", "0")], Colour::Terminal),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], Colour::Never),
            (&[("TERM", "dumb")], Colour::Never),
        ];
        for (vars, want) in cases {
            assert_eq!(with(vars).colour(), *want, "{vars:?}");
        }
    }

    #[test]
    fn credentials_are_looked_for_in_order() {
        let env = with(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "a.json"), ("XDG_RUNTIME_DIR", "/run/u")]);
        let want = ["/work/a.json", "/h/.docker/config.json", "/run/u/containers/auth.json", "/h/.config/containers/auth.json"];
        assert_eq!(env.credential_files(), want.map(PathBuf::from));
    }
}
