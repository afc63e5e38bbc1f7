//! The client for all registries: requests with authentication, redirects and retries, at the places that the rules name.
//!
//! Pulling and pushing are next door ([`super::pull`], [`super::push`]). A place that is a mirror and fails is left out for
//! the rest of the client's life, which is one command: each of thirty layers would wait for it else.
//!
//! What a newcomer would get wrong: credentials, tokens and messages are the place's that is asked, not the name's.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Method, Response, Uri};

use super::auth::{self, Challenge};
use super::credentials;
use super::error::Recovery;
use super::hosts::{self, authority};
use super::http::Http;
use super::pause::Pause;
use super::rules::{NamedBy, Place, Rule};
use super::{RegistryConfig, RegistryError, Retry, transfer};
use crate::digest::Digest;

/// How Docker's own registry is called in references.
pub(super) const HUB_NAME: &str = "docker.io";
/// Where it is: the one host that is known by name.
pub(super) const HUB_HOST: &str = "registry-1.docker.io";

const REDIRECTS_MAX: usize = 5;
/// How much of an error's body is read.
const ERROR_MAX_BYTES: u64 = 64 << 10;

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// As references name it: `docker.io`, `localhost:5000`.
    pub host: String,
    /// `library/alpine`.
    pub path: String,
}

/// A request to a repository.
pub(super) struct Call<'c> {
    pub method: Method,
    /// Below the repository, or where the registry said.
    pub url: Uri,
    pub headers: &'c [(&'c str, &'c str)],
    /// What a token must allow; several are separated by spaces.
    pub scope: String,
    /// What it is about, for messages.
    pub what: &'c dyn Fn() -> String,
}

/// Opens a request's body (its bytes and their number), each time that it has to be sent.
pub(super) type Opener<'o> = dyn FnMut() -> io::Result<(Box<dyn Read + 'o>, u64)> + 'o;

/// A client for all registries; shared by threads, keeps connections and tokens.
pub struct Client {
    http: Http,
    /// By origin and scope.
    tokens: Mutex<HashMap<(String, String), String>>,
    /// Mirrors that failed.
    left_out: Mutex<HashSet<Place>>,
    /// Mirrors of which it was said that they failed, or did not have something.
    told: Mutex<HashSet<Place>>,
    /// Where a repository's last document came from: what it names is asked for there first.
    served: Mutex<HashMap<Repository, Place>>,
    /// Where a blob came from.
    sources: Mutex<HashMap<Digest, Place>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Returns the root of the registry's addresses.
    pub(super) fn base(&self, http: &Http) -> Result<Uri, RegistryError> {
        let host = self.authority();
        let refused = || RegistryError::Host(self.at.host.clone());
        let plain_text = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_'));
        if !plain_text || host.is_empty() {
            return Err(refused());
        }
        let scheme = if http.speaks_tls(self)? { "https" } else { "http" };
        format!("{scheme}://{host}/").parse().map_err(|_| refused())
    }
}

impl Client {
    /// Makes a client; connects to nothing.
    pub fn new(config: RegistryConfig) -> Self {
        let (tokens, left_out, told, served, sources) = Default::default();
        Self { http: Http::new(config), tokens, left_out, told, served, sources }
    }

    /// Returns the way to addresses that are no registry's.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Returns what it was made with.
    pub fn config(&self) -> &RegistryConfig {
        self.http.config()
    }

    /// Returns where a repository is asked for, in order, without the mirrors that have failed.
    pub(super) fn places(&self, repository: &Repository, by: NamedBy) -> Result<Vec<Place>, RegistryError> {
        let mut places = self.config().rules.rules()?.places(repository, by).map_err(blocked)?;
        // What a document names is where the document was.
        if let Some(served) = lock(&self.served).get(repository).filter(|_| by == NamedBy::Digest)
            && served.mirror
        {
            places.retain(|p| p != served);
            places.insert(0, served.clone());
        }
        let left_out = lock(&self.left_out);
        places.retain(|p| !left_out.contains(p));
        Ok(places)
    }

    /// Returns where a repository is pushed to.
    pub(super) fn place_to_push(&self, repository: &Repository) -> Result<Place, RegistryError> {
        self.config().rules.rules()?.place_to_push(repository).map_err(blocked)
    }

    /// Asks the places in order until one gives what is asked for; the error is the last one's.
    pub(super) fn at_places<T>(
        &self,
        repository: &Repository,
        by: NamedBy,
        ask: &mut dyn FnMut(&Place, Retry) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let retry = self.config().retry;
        for place in self.places(repository, by)? {
            match ask(&place, if place.mirror { retry.hurried() } else { retry }) {
                Err(RegistryError::Interrupted) => return Err(RegistryError::Interrupted),
                Err(e) if place.mirror => self.leave_out(&place, &e),
                answer => return answer,
            }
        }
        Err(RegistryError::Host(repository.host.clone()))
    }

    /// Asks a mirror nothing any more, unless it merely lacks what was asked for; says so once.
    pub(super) fn leave_out(&self, place: &Place, why: &RegistryError) {
        let lacks = matches!(why, RegistryError::NotFound { .. });
        if !lacks {
            lock(&self.left_out).insert(place.clone());
        }
        if lock(&self.told).insert(place.clone())
            && let Some(notices) = &self.config().notices
        {
            let mut text = why.to_string();
            let mut next = std::error::Error::source(why);
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            let what = if lacks { "is passed over" } else { "is left out" };
            (notices.0)(&format!("the mirror {}/{} {what}: {text}", place.at.host, place.at.path));
        }
    }

    pub(super) fn note_served(&self, repository: &Repository, place: &Place) {
        lock(&self.served).insert(repository.clone(), place.clone());
    }

    pub(super) fn note_source(&self, blob: &Digest, place: &Place) {
        lock(&self.sources).insert(*blob, place.clone());
    }

    pub(super) fn source_of(&self, blob: &Digest) -> Option<Place> {
        lock(&self.sources).get(blob).cloned()
    }

    /// Tries again what fails in passing.
    pub(super) fn patiently<T>(&self, retry: Retry, mut attempt: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut pause = Pause::new(retry);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(e) => self.wait(&mut pause, e)?,
            }
        }
    }

    /// Waits, or returns the error when trying again can't help or was tried enough.
    pub(super) fn wait(&self, pause: &mut Pause, error: RegistryError) -> Result<(), RegistryError> {
        let recovery = match error.recovery() {
            // Who has answered is away for a moment; who never did may not be there at all.
            Recovery::Unreachable if matches!(&error, RegistryError::Transport { url, .. } if self.http.has_answered(url)) => {
                Recovery::Outage
            }
            recovery => recovery,
        };
        self.wait_as(pause, recovery, error)
    }

    /// As [`Client::wait`], where the caller knows better than the error whether trying again can help.
    pub(super) fn wait_as(&self, pause: &mut Pause, recovery: Recovery, error: RegistryError) -> Result<(), RegistryError> {
        match pause.after(recovery, error.retry_after()) {
            Some(time) if transfer::pause(time, &self.config().ends()) => Ok(()),
            Some(_) => Err(RegistryError::Interrupted),
            None if pause.tries > 1 && !matches!(error, RegistryError::GivenUp { .. }) => {
                Err(RegistryError::GivenUp { tries: pause.tries, source: Box::new(error) })
            }
            None => Err(error),
        }
    }

    /// Returns an address below `/v2/REPOSITORY/`.
    pub(super) fn below(&self, place: &Place, path: &str) -> Result<Uri, RegistryError> {
        let base = place.base(&self.http)?;
        hosts::join(&base, &format!("/v2/{}/{path}", place.at.path)).ok_or_else(|| RegistryError::Host(place.at.host.clone()))
    }

    /// Sends a request, with the authorization that the registry asks for, and follows where it leads; what comes back is
    /// neither a redirect nor a first challenge.
    pub(super) fn ask(
        &self,
        place: &Place,
        call: &Call<'_>,
        mut body: Option<&mut Opener<'_>>,
    ) -> Result<(Uri, Response<Body>), RegistryError> {
        let mut base = place.base(&self.http)?;
        let mut url = call.url.clone();
        let mut authorization = self.token(&base, &call.scope);
        let (mut asked, mut hops) = (false, 0);
        loop {
            let mut all = call.headers.to_vec();
            // Only where the challenge came from: a redirect to another host, port or scheme gets nothing.
            if let Some(value) = authorization.as_deref().filter(|_| hosts::same_origin(&url, &base)) {
                all.push(("authorization", value));
            }
            let answer = self.send(place, call, &url, &all, body.as_deref_mut());
            if makes_no_sense(&answer) && hosts::same_origin(&url, &base) && base.scheme_str() == Some("http") && self.http.wants_tls(place)
            {
                (base, url) = (place.base(&self.http)?, with_tls(&url).unwrap_or(url));
                continue;
            }
            let response = answer?;
            match response.status().as_u16() {
                401 if !asked && hosts::same_origin(&url, &base) => {
                    asked = true;
                    authorization = self.answer_challenge(place, &base, &response, &call.scope, call.what)?;
                    if let Some(value) = &authorization {
                        lock(&self.tokens).insert((base.to_string(), call.scope.clone()), value.clone());
                    }
                }
                // The other three would make a GET of anything.
                status @ (301 | 302 | 303 | 307 | 308)
                    if matches!(status, 307 | 308) || matches!(call.method, Method::GET | Method::HEAD) =>
                {
                    hops += 1;
                    url = self.redirect(place, &url, &response, hops)?;
                }
                _ => return Ok((url, response)),
            }
        }
    }

    /// Asks for the root of a registry's API, without credentials.
    pub(super) fn greet(&self, place: &Place) -> Result<(Uri, Response<Body>), RegistryError> {
        loop {
            let base = place.base(&self.http)?;
            let url = hosts::join(&base, "/v2/").ok_or_else(|| RegistryError::Host(place.at.host.clone()))?;
            let answer = self.http.send(&Method::GET, &url, &[], None, self.http.trust(&url, place));
            if !(makes_no_sense(&answer) && base.scheme_str() == Some("http") && self.http.wants_tls(place)) {
                return answer.map(|response| (url, response));
            }
        }
    }

    fn token(&self, base: &Uri, scope: &str) -> Option<String> {
        lock(&self.tokens).get(&(base.to_string(), scope.to_string())).cloned()
    }

    fn send(
        &self,
        place: &Place,
        call: &Call<'_>,
        url: &Uri,
        headers: &[(&str, &str)],
        body: Option<&mut Opener<'_>>,
    ) -> Result<Response<Body>, RegistryError> {
        let trust = self.http.trust(url, place);
        let Some(open) = body else { return self.http.send(&call.method, url, headers, None, trust) };
        let (mut reader, length) = open().map_err(|source| RegistryError::Read { what: (call.what)(), source })?;
        self.http.send(&call.method, url, headers, Some((&mut reader, length)), trust)
    }

    fn redirect(&self, place: &Place, url: &Uri, response: &Response<Body>, hops: usize) -> Result<Uri, RegistryError> {
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refused = || RegistryError::Redirect { url: url.to_string(), to: location.chars().take(200).collect() };
        let next = hosts::join(url, location).filter(|_| hops <= REDIRECTS_MAX).ok_or_else(refused)?;
        self.http.require_secure(&next, place).map_err(|_| refused())?;
        // A registry elsewhere must not make us ask this machine's own services.
        if hosts::is_loopback(authority(&next)) && !hosts::is_loopback(authority(url)) {
            return Err(refused());
        }
        Ok(next)
    }

    fn answer_challenge(
        &self,
        place: &Place,
        base: &Uri,
        response: &Response<Body>,
        scope: &str,
        what: &dyn Fn() -> String,
    ) -> Result<Option<String>, RegistryError> {
        let host = || place.at.host.clone();
        let values: Vec<&str> = response.headers().get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok()).collect();
        let challenge = Challenge::parse(values.iter().copied())
            .ok_or_else(|| RegistryError::Challenge { host: host(), challenge: values.join(", ").chars().take(200).collect() })?;
        let config = self.http.config();
        let credential = credentials::find(&config.auth_files, &config.helper_dirs, &place.at)
            .map_err(|source| RegistryError::Credentials { host: host(), source })?;
        let value = auth::authorize(&self.http, place, base, &challenge, scope, credential.as_ref())?;
        value.map(Some).ok_or_else(|| RegistryError::Denied {
            what: what(),
            host: host(),
            message: "it asks for a password, and no credentials are known for it".into(),
        })
    }
}

/// Makes an error of an answer that is no success.
pub(super) fn refusal(place: &Place, url: &Uri, status: u16, response: &mut Response<Body>, what: &dyn Fn() -> String) -> RegistryError {
    let retry_after = retry_after(response);
    let (codes, message) = error_codes(response.body_mut());
    match status {
        400 | 404 if codes.iter().any(|code| code == "MANIFEST_BLOB_UNKNOWN") => {
            RegistryError::BlobUnknown { what: what(), host: place.at.host.clone(), message }
        }
        404 => RegistryError::NotFound { what: what(), host: place.at.host.clone() },
        401 | 403 => RegistryError::Denied { what: what(), host: place.at.host.clone(), message },
        _ => RegistryError::Status { url: url.to_string(), status, message, retry_after },
    }
}

fn blocked(rule: &Rule) -> RegistryError {
    RegistryError::Blocked { prefix: rule.prefix.clone(), file: rule.file.clone() }
}

/// Tells whether an answer to http may be that of a server which expected TLS: such ones say 400, or hang up.
fn makes_no_sense(answer: &Result<Response<Body>, RegistryError>) -> bool {
    match answer {
        Ok(response) => response.status().as_u16() == 400,
        Err(RegistryError::Transport { source, .. }) => matches!(&**source, ureq::Error::Protocol(_) | ureq::Error::Io(_)),
        Err(_) => false,
    }
}

fn with_tls(url: &Uri) -> Option<Uri> {
    url.to_string().strip_prefix("http://").and_then(|rest| format!("https://{rest}").parse().ok())
}

/// Reads `Retry-After`: seconds, or a date, which is compared with the server's own.
pub(super) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let value = header("retry-after")?;
    if let Ok(secs) = value.parse() {
        return Some(Duration::from_secs(secs));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|t| t.timestamp().as_second());
    let secs = date(value)?.saturating_sub(date(header("date")?)?);
    Some(Duration::from_secs(u64::try_from(secs).unwrap_or(0)))
}

/// Returns the messages of the specification's error body; empty when it has another form.
pub(super) fn error_message(body: &mut Body) -> String {
    error_codes(body).1
}

/// Returns the codes of the specification's error body, and its messages.
fn error_codes(body: &mut Body) -> (Vec<String>, String) {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    // What can't be read has nothing to say; the status says enough.
    let _ = body.as_reader().take(ERROR_MAX_BYTES).read_to_end(&mut bytes);
    let Ok(parsed) = serde_json::from_slice::<Errors>(&bytes) else { return Default::default() };
    let texts: Vec<&str> =
        parsed.errors.iter().take(3).map(|e| if e.message.is_empty() { e.code.as_str() } else { e.message.as_str() }).collect();
    // It is shown on a terminal: no control characters of a stranger's.
    let text = texts.join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    (parsed.errors.into_iter().map(|e| e.code).collect(), text)
}
