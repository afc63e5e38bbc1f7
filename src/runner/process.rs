//! Which process a container runs: docker's rules for ENTRYPOINT, CMD, USER, WORKDIR and the environment. Pure.
//!
//! Sources: moby `daemon/commit.go` (`merge`), `daemon/container/container.go` (`CreateDaemonEnvironment`), and
//! runc for `HOME`. A newcomer would expect `--entrypoint` to keep the image's CMD; it drops it.

use std::ffi::OsString;

use crate::image::config::RunConfig;
use crate::sandbox::defaults;

use super::request::RunRequest;

/// A process, as far as it can be known without the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Command and arguments; not empty.
    pub argv: Vec<OsString>,
    /// Its environment in docker's order; without `HOME` unless someone gave it.
    pub env: Vec<(String, String)>,
    /// Absolute and clean.
    pub cwd: String,
    /// `USER` as text; empty: root.
    pub user: String,
    /// Its host name.
    pub hostname: String,
}

/// A request that docker refuses, too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProcessError {
    #[error("no command specified: the image has neither ENTRYPOINT nor CMD")]
    NoCommand,
    #[error("the working directory `{0}` is not an absolute path")]
    WorkingDirectory(String),
}

/// Derives the process of a request for an image. `id` is the container's.
pub fn derive(request: &RunRequest, image: &RunConfig, id: &str) -> Result<Process, ProcessError> {
    let hostname = request.hostname.clone().unwrap_or_else(|| id.chars().take(SHORT_ID).collect());
    let cwd = request.workdir.as_deref().unwrap_or(&image.working_dir);
    Ok(Process {
        argv: argv(request, image).ok_or(ProcessError::NoCommand)?,
        env: environment(request, image, &hostname),
        cwd: clean(cwd).ok_or_else(|| ProcessError::WorkingDirectory(cwd.into()))?,
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        hostname,
    })
}

/// How much of an id people are shown.
pub const SHORT_ID: usize = 12;

fn argv(request: &RunRequest, image: &RunConfig) -> Option<Vec<OsString>> {
    let owned = |list: &Option<Vec<String>>| list.iter().flatten().map(OsString::from).collect::<Vec<_>>();
    let (mut argv, cmd) = match request.entrypoint.as_deref() {
        // `--entrypoint ""`: none at all, the image's CMD included.
        Some("") => (Vec::new(), Vec::new()),
        Some(entrypoint) => (vec![entrypoint.into()], Vec::new()),
        None => (owned(&image.entrypoint), owned(&image.cmd)),
    };
    argv.extend(if request.args.is_empty() { cmd } else { request.args.clone() });
    (!argv.is_empty()).then_some(argv)
}

/// Docker's defaults, then the request's variables, then the image's that the request doesn't have; a name keeps
/// its first place and takes its last value.
fn environment(request: &RunRequest, image: &RunConfig, hostname: &str) -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_string(), defaults::PATH.to_string()), ("HOSTNAME".into(), hostname.into())];
    if request.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    for (name, value) in &request.env {
        set(&mut env, name, value);
    }
    for variable in &image.env {
        // A variable without `=` stands for nothing.
        let Some((name, value)) = variable.split_once('=') else { continue };
        if !request.env.iter().any(|(given, _)| given == name) {
            set(&mut env, name, value);
        }
    }
    env
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.into(),
        None => env.push((name.into(), value.into())),
    }
}

/// Returns an absolute path without `.`, `..` and empty components; empty: the root. None: it is relative.
pub(super) fn clean(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("/".into());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn entrypoint_cmd_and_arguments_combine_as_dockers() {
        let (entrypoint, cmd) = (list(&["/e", "-x"]), list(&["c", "d"]));
        for (entrypoint, cmd, given, args, want) in [
            (&entrypoint, &cmd, None, &[][..], Some("/e -x c d")),
            (&entrypoint, &cmd, None, &["a"], Some("/e -x a")),
            (&None, &cmd, None, &[], Some("c d")),
            (&None, &cmd, None, &["a", "b"], Some("a b")),
            (&entrypoint, &None, None, &[], Some("/e -x")),
            (&entrypoint, &cmd, Some("/o"), &[], Some("/o")),
            (&entrypoint, &cmd, Some("/o"), &["a"], Some("/o a")),
            (&entrypoint, &cmd, Some(""), &["a"], Some("a")),
            (&entrypoint, &cmd, Some(""), &[], None),
            (&None, &None, None, &[], None),
        ] {
            let image = RunConfig { entrypoint: entrypoint.clone(), cmd: cmd.clone(), ..RunConfig::default() };
            let request = RunRequest {
                entrypoint: given.map(String::from),
                args: args.iter().map(OsString::from).collect(),
                ..RunRequest::default()
            };
            let got = derive(&request, &image, "0123456789abcdef").map(|process| process.argv.join(" ".as_ref()));
            assert_eq!(got, want.map(OsString::from).ok_or(ProcessError::NoCommand), "{given:?} {args:?}");
        }
    }

    #[test]
    fn the_environment_has_dockers_order_and_the_requests_values() {
        let image = RunConfig { cmd: list(&["x"]), env: list(&["PATH=/p", "LANG=C", "GONE", "EMPTY="]).unwrap(), ..RunConfig::default() };
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        let request = RunRequest { tty: true, env: pairs(&[("A", "1"), ("LANG", "de"), ("A", "2")]), ..RunRequest::default() };
        let process = derive(&request, &image, "0123456789abcdef").unwrap();
        let want = [("PATH", "/p"), ("HOSTNAME", "0123456789ab"), ("TERM", "xterm"), ("A", "2"), ("LANG", "de"), ("EMPTY", "")];
        assert_eq!(process.env, pairs(&want));
    }

    #[test]
    fn the_request_overrides_user_and_working_directory() {
        let image = RunConfig { cmd: list(&["x"]), user: "app".into(), working_dir: "/srv".into(), ..RunConfig::default() };
        let of = |workdir: Option<&str>, user: Option<&str>| {
            let (workdir, user) = (workdir.map(String::from), user.map(String::from));
            derive(&RunRequest { workdir, user, ..RunRequest::default() }, &image, "id").map(|process| (process.cwd, process.user))
        };
        assert_eq!(of(None, None), Ok(("/srv".into(), "app".into())));
        assert_eq!(of(Some("/a/./b/../c/"), Some("0:0")), Ok(("/a/c".into(), "0:0".into())));
        assert_eq!(of(Some("/../.."), None), Ok(("/".into(), "app".into())));
        assert_eq!(of(Some("rel"), None), Err(ProcessError::WorkingDirectory("rel".into())));
    }
}
