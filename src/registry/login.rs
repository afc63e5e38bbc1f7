//! Logging in and out: credentials are tried, then kept where Docker keeps them.
//!
//! The file is Docker's `config.json`; what else it holds stays as it is. Where it names a credential helper for the
//! registry, the secret goes there and not into the file. Without one it is in the file as Docker has it, merely encoded,
//! readable by its owner alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::auth::{self, Challenge};
use super::client::{Client, HUB_NAME, Repository};
use super::credentials::{self, Credential, CredentialError};
use super::{RegistryConfig, RegistryError};
use crate::fsio::{self, Durability};

/// A login that can't be kept or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum LoginError {
    #[error(transparent)]
    File(#[from] CredentialError),
    #[error("{path:?} is not an object of JSON")]
    NotObject { path: PathBuf },
    #[error("writing {path:?}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the credential helper `{name}`, which {path:?} names, is not in PATH")]
    NoHelper { path: PathBuf, name: String },
    #[error("the credential helper `{name}` failed{}", detail(.said))]
    Helper { name: String, said: String },
}

fn detail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Client {
    /// Asks a registry whether it takes a credential. Returns whether it asks for one at all.
    pub fn check_login(&self, host: &str, credential: &Credential) -> Result<bool, RegistryError> {
        let place = self.place_to_push(&Repository { host: host.into(), path: String::new() })?;
        let (url, response) = self.greet(&place)?;
        let unexpected = |status| RegistryError::status(&url, status, "");
        match response.status().as_u16() {
            200 => return Ok(false),
            401 => {}
            status => return Err(unexpected(status)),
        }
        let values: Vec<&str> = response.headers().get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok()).collect();
        let challenge = Challenge::parse(values.iter().copied())
            .ok_or_else(|| RegistryError::Challenge { host: host.into(), challenge: values.join(", ").chars().take(200).collect() })?;
        let denied = |message: &str| RegistryError::Denied { what: "its API".into(), host: host.into(), message: message.into() };
        let header = auth::authorize(self.http(), &place, &url, &challenge, "", Some(credential))?;
        let header = header.ok_or_else(|| denied("it takes no token of this kind"))?;
        let trust = self.http().trust(&url, &place);
        match self.http().send(&Method::GET, &url, &[("authorization", &header)], None, trust)?.status().as_u16() {
            200 => Ok(true),
            401 | 403 => Err(denied("the user or password is wrong")),
            status => Err(unexpected(status)),
        }
    }
}

/// Docker's `config.json`, to be changed.
#[derive(Debug)]
pub struct Logins<'a> {
    /// The file; it need not exist.
    pub path: PathBuf,
    /// Where helpers are.
    pub config: &'a RegistryConfig,
}

impl Logins<'_> {
    /// Keeps a user's password for a registry. Returns the helper that has it; none: it is in the file.
    pub fn keep(&self, host: &str, user: &str, password: &str) -> Result<Option<String>, LoginError> {
        let mut file = self.read()?;
        let server = credentials::server_name(&registry(host));
        if let Some(name) = helper(&file, host) {
            let secret = json!({ "ServerURL": server, "Username": user, "Secret": password });
            self.ask(&name, "store", secret.to_string().as_bytes())?;
            // An empty entry tells docker that there is a login.
            entries(&mut file).insert(server, json!({}));
            self.write(&file)?;
            return Ok(Some(name));
        }
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        remove(&mut file, host);
        entries(&mut file).insert(server, json!({ "auth": auth }));
        self.write(&file)?;
        Ok(None)
    }

    /// Forgets what is kept for a registry. Returns whether there was anything.
    pub fn forget(&self, host: &str) -> Result<bool, LoginError> {
        let mut file = self.read()?;
        let named = helper(&file, host);
        let found = remove(&mut file, host);
        if let Some(name) = named.filter(|_| found) {
            self.ask(&name, "erase", credentials::server_name(&registry(host)).as_bytes())?;
        }
        if found {
            self.write(&file)?;
        }
        Ok(found)
    }

    fn read(&self) -> Result<Map<String, Value>, LoginError> {
        let text = credentials::read(&self.path)?.unwrap_or_default();
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        let malformed = |source| CredentialError::Malformed { path: self.path.clone(), source };
        match serde_json::from_slice(&text).map_err(malformed)? {
            Value::Object(file) => Ok(file),
            _ => Err(LoginError::NotObject { path: self.path.clone() }),
        }
    }

    fn write(&self, file: &Map<String, Value>) -> Result<(), LoginError> {
        let failed = |source| LoginError::Write { path: self.path.clone(), source };
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        // A link stays one: what it leads to is replaced.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let text = serde_json::to_vec_pretty(file).expect("a Value is serialisable");
        fsio::write_atomic(&path, &text, 0o600, Durability::Synced).map_err(|e| failed(std::io::Error::other(e)))
    }

    fn ask(&self, name: &str, action: &str, input: &[u8]) -> Result<(), LoginError> {
        let program = credentials::helper_program(&self.path, name, &self.config.helper_dirs)?;
        let program = program.ok_or_else(|| LoginError::NoHelper { path: self.path.clone(), name: name.into() })?;
        let failed = |said: String| LoginError::Helper { name: name.into(), said };
        let broken = |e: std::io::Error| failed(e.to_string());
        let mut child = Command::new(program).arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let child = child.as_mut().map_err(|e| failed(e.to_string()))?;
        // A helper may exit without reading; what it says decides.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            std::io::Read::read_to_end(&mut std::io::Read::take(out, 4096), &mut said).map_err(broken)?;
        }
        if child.wait().map_err(broken)?.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(200).collect();
        Err(failed(said.trim().to_string()))
    }
}

/// Reads the name of a registry as people write it: `https://` and a path (Docker's own is a URL of old) are dropped.
pub fn host_of(text: &str) -> String {
    let bare = credentials::bare(text);
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => HUB_NAME.into(),
        host => host.into(),
    }
}

fn registry(host: &str) -> Repository {
    Repository { host: host.into(), path: String::new() }
}

/// Returns the helper that a file names for a registry.
fn helper(file: &Map<String, Value>, host: &str) -> Option<String> {
    let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_string);
    let own = file.get("credHelpers").and_then(|h| credentials::keys(&registry(host)).iter().find_map(|k| text(h.get(k)?)));
    own.or_else(|| file.get("credsStore").and_then(text))
}

fn entries(file: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    auths.as_object_mut().expect("it was made one")
}

/// Removes the entries of a registry, however they are spelled.
fn remove(file: &mut Map<String, Value>, host: &str) -> bool {
    let auths = entries(file);
    let before = auths.len();
    auths.retain(|key, _| host_of(key) != host || credentials::bare(key).contains('/'));
    auths.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins<'a>(path: PathBuf, config: &'a RegistryConfig) -> Logins<'a> {
        Logins { path, config }
    }

    #[test]
    fn a_password_is_kept_as_docker_keeps_it_and_the_rest_of_the_file_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let config = RegistryConfig { auth_files: vec![path.clone()], ..RegistryConfig::default() };
        let logins = logins(path.clone(), &config);
        assert_eq!(logins.keep("r.example:5000", "me", "pw:1").unwrap(), None);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let find = |host: &str| credentials::find(&config.auth_files, &[], &Repository { host: host.into(), path: "a/b".into() }).unwrap();
        let password = |user: &str, password: &str| Some(Credential::Password { user: user.into(), password: password.into() });
        assert_eq!(find("r.example:5000"), password("me", "pw:1"));
        std::fs::write(&path, r#"{"x":1,"auths":{"https://r.example:5000/v2/":{"auth":"YTpi"},"other":{}}}"#).unwrap();
        logins.keep("r.example:5000", "you", "2").unwrap();
        logins.keep(HUB_NAME, "hub", "3").unwrap();
        assert_eq!((find("r.example:5000"), find(HUB_NAME)), (password("you", "2"), password("hub", "3")));
        assert!(logins.forget("r.example:5000").unwrap() && logins.forget(HUB_NAME).unwrap());
        assert!(!logins.forget("r.example:5000").unwrap());
        let left: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(left, json!({"x": 1, "auths": {"other": {}}}));
    }

    #[test]
    fn a_secret_goes_to_the_helper_that_the_file_names() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (path, log) = (dir.path().join("config.json"), dir.path().join("log"));
        let program = dir.path().join("docker-credential-safe");
        let script =
            format!("#!/bin/sh\n(echo $1; cat; echo) >> {}\n[ $1 != erase ] || {{ echo nothing there; exit 1; }}\n", log.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = RegistryConfig { helper_dirs: vec![dir.path().into()], ..RegistryConfig::default() };
        let logins = logins(path.clone(), &config);
        std::fs::write(&path, r#"{"credHelpers":{"r.example":"safe"}}"#).unwrap();
        assert_eq!(logins.keep("r.example", "me", "secret").unwrap().as_deref(), Some("safe"));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("secret"));
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "store\n{\"Secret\":\"secret\",\"ServerURL\":\"r.example\",\"Username\":\"me\"}\n"
        );
        assert_eq!(logins.forget("r.example").unwrap_err().to_string(), "the credential helper `safe` failed: nothing there");
        std::fs::write(&path, r#"{"credsStore":"gone"}"#).unwrap();
        assert!(logins.keep("x", "me", "secret").unwrap_err().to_string().contains("`gone`"));
    }

    #[test]
    fn registries_are_named_in_many_ways() {
        for (text, want) in [
            ("r.example:5000", "r.example:5000"),
            ("https://r.example/v2/", "r.example"),
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            assert_eq!(host_of(text), want);
        }
    }
}
