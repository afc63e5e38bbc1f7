//! Finds the credentials for a registry: Docker's `config.json`, containers' `auth.json`, credential helpers.
//!
//! The order within a file is Docker's: `credHelpers` of the host, `credsStore`, `auths`. A helper that knows
//! nothing of the host, or that can't be run, leaves it to `auths`. Helpers are programs that a file names, so the
//! name is checked and the program is looked for in absolute directories only (CVE-2025-15558).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde::Deserialize;

use super::client::{HUB_NAME, Repository};

/// The largest file and the largest helper's answer.
pub(super) const FILE_MAX_BYTES: u64 = 4 << 20;

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// For basic authentication, and for asking for tokens.
    Password {
        /// The user's name.
        user: String,
        /// The password, or a personal token.
        password: String,
    },
    /// An OAuth 2 refresh token.
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// A file with credentials that can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CredentialError {
    #[error("reading {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path:?} is malformed")]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{path:?} has an `auth` for `{key}` that is not the base64 of USER:PASSWORD")]
    Auth { path: PathBuf, key: String },
    #[error("{path:?} names the credential helper `{name}`, which is not a plain name")]
    HelperName { path: PathBuf, name: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Returns the credential for the repository from the first file that has one.
pub(super) fn find(files: &[PathBuf], helper_dirs: &[PathBuf], repository: &Repository) -> Result<Option<Credential>, CredentialError> {
    for path in files {
        let Some(text) = read(path)? else { continue };
        if let Some(found) = find_in(path, &text, helper_dirs, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialError> {
    let failed = |source| CredentialError::Read { path: path.into(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(Some(text))
}

fn find_in(path: &Path, text: &[u8], helper_dirs: &[PathBuf], repository: &Repository) -> Result<Option<Credential>, CredentialError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let file: AuthFile = serde_json::from_slice(text).map_err(|source| CredentialError::Malformed { path: path.into(), source })?;
    let keys = keys(repository);
    let helper = keys.iter().find_map(|k| file.cred_helpers.get(k)).or(file.creds_store.as_ref().filter(|s| !s.is_empty()));
    if let Some(name) = helper {
        let program = helper_program(path, name, helper_dirs)?;
        if let Some(found) = program.and_then(|p| ask_helper(&p, server_name(repository))) {
            return Ok(Some(found));
        }
    }
    // Keys of the file may have a scheme and a version path; ours are bare.
    let entry = keys.iter().find_map(|key| file.auths.iter().find(|(k, _)| bare(k) == *key));
    match entry {
        Some((key, entry)) => entry.credential().ok_or_else(|| CredentialError::Auth { path: path.into(), key: key.clone() }),
        None => Ok(None),
    }
}

/// Finds the program of a helper that `path` names; none: it is not there.
pub(super) fn helper_program(path: &Path, name: &str, helper_dirs: &[PathBuf]) -> Result<Option<PathBuf>, CredentialError> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) || name.is_empty() {
        return Err(CredentialError::HelperName { path: path.into(), name: name.chars().take(80).collect() });
    }
    let program = format!("docker-credential-{name}");
    Ok(helper_dirs.iter().filter(|d| d.is_absolute()).map(|d| d.join(&program)).find(|p| p.is_file()))
}

/// Returns what names the repository in such files, the most exact first.
pub(super) fn keys(repository: &Repository) -> Vec<String> {
    let mut hosts = vec![repository.host.clone()];
    if repository.host == HUB_NAME {
        hosts.extend([format!("index.{HUB_NAME}"), format!("registry-1.{HUB_NAME}")]);
    }
    let mut out = Vec::new();
    for host in &hosts {
        // containers' auth.json: `host/namespace/repository`, `host/namespace`, `host`.
        let mut path = repository.path.as_str();
        loop {
            out.push(format!("{host}/{path}"));
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None => break,
            }
        }
    }
    out.extend(hosts);
    out
}

pub(super) fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.strip_suffix('/').unwrap_or(key);
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// Returns the name under which helpers know the registry: Docker's own is a URL of old.
pub(super) fn server_name(repository: &Repository) -> String {
    if repository.host == HUB_NAME { format!("https://index.{HUB_NAME}/v1/") } else { repository.host.clone() }
}

impl AuthEntry {
    /// None: the entry is malformed. An entry without anything is an empty login.
    fn credential(&self) -> Option<Option<Credential>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|t| !t.is_empty()) {
            return Some(Some(Credential::IdentityToken(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|a| !a.is_empty()) {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            let password = password.trim_end_matches('\0');
            return Some(Some(Credential::Password { user: user.into(), password: password.into() }));
        }
        Some(match (&self.username, &self.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Some(Credential::Password { user: user.clone(), password: password.clone() })
            }
            _ => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Asks a helper; none when it fails or knows nothing, as Docker does.
fn ask_helper(program: &Path, server: String) -> Option<Credential> {
    let mut child = Command::new(program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    // A helper may exit without reading; what it says decides.
    let _ = child.stdin.take()?.write_all(server.as_bytes());
    let mut text = Vec::new();
    let read = child.stdout.take()?.take(FILE_MAX_BYTES).read_to_end(&mut text);
    let status = child.wait().ok()?;
    read.ok()?;
    if !status.success() {
        return None;
    }
    let answer: HelperAnswer = serde_json::from_slice(&text).ok()?;
    Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(answer.secret),
        _ => Credential::Password { user: answer.username, password: answer.secret },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: password.into() })
    }

    fn look(text: &str, host: &str, path: &str) -> Result<Option<Credential>, CredentialError> {
        find_in(Path::new("config.json"), text.as_bytes(), &[], &Repository { host: host.into(), path: path.into() })
    }

    #[test]
    fn the_most_exact_entry_wins() {
        // base64: u:p, v:q:r
        let text = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpw"},
            "r.example":{"auth":"dTpw"},
            "r.example/team/app":{"auth":"djpxOnI="},
            "plain.example":{"username":"n","password":"w"},
            "token.example":{"identitytoken":"t","auth":"dTpw"},
            "empty.example":{}}}"#;
        for (host, path, want) in [
            ("docker.io", "library/alpine", password("u", "p")),
            ("r.example", "x", password("u", "p")),
            ("r.example", "team/app", password("v", "q:r")),
            ("r.example", "team/app/sub", password("v", "q:r")),
            ("r.example", "team", password("u", "p")),
            ("plain.example", "x", password("n", "w")),
            ("token.example", "x", Some(Credential::IdentityToken("t".into()))),
            ("empty.example", "x", None),
            ("other.example", "x", None),
            ("example", "r", None),
        ] {
            assert_eq!(look(text, host, path).unwrap(), want, "{host}/{path}");
        }
        assert_eq!(look("", "r.example", "x").unwrap(), None);
    }

    #[test]
    fn malformed_files_and_names_are_told() {
        assert!(matches!(look("{", "r", "x"), Err(CredentialError::Malformed { .. })));
        assert!(matches!(look(r#"{"auths":{"r":{"auth":"%"}}}"#, "r", "x"), Err(CredentialError::Auth { .. })));
        for name in ["../x", "a/b", "a b", "a;b"] {
            let text = format!(r#"{{"credsStore":"{name}"}}"#);
            assert!(matches!(look(&text, "r", "x"), Err(CredentialError::HelperName { .. })), "{name}");
        }
    }

    #[test]
    fn a_helper_answers_and_one_that_fails_leaves_it_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        helper("good", r#"read h; printf '{"ServerURL":"%s","Username":"u-%s","Secret":"s"}' "$h" "$h""#);
        helper("token", r#"printf '{"Username":"<token>","Secret":"tt"}'"#);
        helper("none", "echo credentials not found in native keychain; exit 1");
        for (name, want) in [
            ("good", password("u-r.example", "s")),
            ("token", Some(Credential::IdentityToken("tt".into()))),
            ("none", password("u", "p")),
            ("missing", password("u", "p")),
        ] {
            let text = format!(r#"{{"credHelpers":{{"r.example":"{name}"}},"auths":{{"r.example":{{"auth":"dTpw"}}}}}}"#);
            let repository = Repository { host: "r.example".into(), path: "x".into() };
            let found = find_in(Path::new("c"), text.as_bytes(), &[dir.path().into()], &repository).unwrap();
            assert_eq!(found, want, "{name}");
        }
    }
}
