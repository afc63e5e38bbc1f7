//! Pulls documents and blobs, with authentication, redirects and retries.
//!
//! The order of trust: a digest that the caller gave wins over whatever the server says; a tag is worth what the
//! server says, its digest is computed from the bytes. `Docker-Content-Digest` is not read at all.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use ureq::Body;
use ureq::http::{Method, Response, Uri};

use super::auth::{self, Challenge};
use super::credentials;
use super::http::{self, Http};
use super::pause::Pause;
use super::transfer::Pumped;
use super::{Ends, RegistryConfig, RegistryError};
use crate::digest::Digest;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, media};

/// How Docker's own registry is called in references.
pub(super) const HUB_NAME: &str = "docker.io";
/// Where it is: the one host that is known by name.
const HUB_HOST: &str = "registry-1.docker.io";

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

/// A document as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the server calls it, parameters cut off; empty when it said nothing.
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
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
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Repository {
    pub(super) fn base(&self, http: &Http) -> Result<Uri, RegistryError> {
        let host = if self.host == HUB_NAME { HUB_HOST } else { self.host.as_str() };
        let scheme = if http.may_be_plain(host) { "http" } else { "https" };
        let plain_text = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_'));
        let url = plain_text.then(|| format!("{scheme}://{host}/").parse().ok()).flatten();
        url.ok_or_else(|| RegistryError::Host(self.host.clone()))
    }

    pub(super) fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.path)
    }
}

impl Client {
    /// Makes a client; connects to nothing.
    pub fn new(config: RegistryConfig) -> Self {
        Self { http: Http::new(config), tokens: Mutex::default() }
    }

    /// Returns the way to addresses that are no registry's.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Returns what it was made with.
    pub fn config(&self) -> &RegistryConfig {
        self.http.config()
    }

    /// Fetches the manifest or index that a tag or a digest leads to; at most 4 MiB.
    ///
    /// A digest is verified.
    pub fn document(&self, repository: &Repository, tag_or_digest: &str) -> Result<Fetched, RegistryError> {
        let what = || format!("{}/{}:{tag_or_digest}", repository.host, repository.path);
        let mut pause = Pause::new(self);
        let (bytes, media_type) = loop {
            let path = format!("manifests/{tag_or_digest}");
            let attempt = self.get(repository, &path, &[("accept", media::MANIFEST_ACCEPT)], &what).and_then(|(url, mut response)| {
                let media_type = content_type(&response);
                let bytes = read_capped(&url, response.body_mut(), DOCUMENT_MAX_BYTES, &what)?;
                Ok((bytes, media_type))
            });
            match attempt {
                Ok(found) => break found,
                Err(e) => pause.before_retry(e)?,
            }
        };
        let digest = Digest::of(&bytes);
        match tag_or_digest.parse::<Digest>() {
            Ok(expected) if expected != digest => Err(RegistryError::Digest { what: what(), expected, found: digest }),
            _ => Ok(Fetched { bytes, media_type, digest }),
        }
    }

    /// Fetches a small blob (an image's configuration) into memory; size and digest are verified.
    pub fn small_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if blob.size > DOCUMENT_MAX_BYTES {
            return Err(RegistryError::TooLarge { what: blob.digest.to_string(), limit_bytes: DOCUMENT_MAX_BYTES });
        }
        let mut reader = self.open_blob(repository, blob);
        let mut bytes = Vec::new();
        let outcome = reader.read_to_end(&mut bytes);
        outcome.map_err(|e| RegistryError::from_io(e, || reader.what()))?;
        let found = Digest::of(&bytes);
        if found != blob.digest {
            return Err(RegistryError::Digest { what: reader.what(), expected: blob.digest, found });
        }
        Ok(bytes)
    }

    /// Opens a blob for reading; connects at the first read.
    ///
    /// The reader gives exactly the descriptor's number of bytes or an error (a [`RegistryError`] inside an
    /// [`io::Error`]; [`RegistryError::from_io`] takes it out). A transfer that breaks goes on where it broke.
    /// **The digest is not verified**: whoever stores the bytes does that, in the same pass.
    pub fn open_blob<'a>(&'a self, repository: &'a Repository, blob: &Descriptor) -> BlobReader<'a> {
        BlobReader {
            client: self,
            repository,
            digest: blob.digest,
            size: blob.size,
            body: None,
            skip: 0,
            done: 0,
            done_before: 0,
            pause: Pause::new(self),
        }
    }

    /// Sends a GET below `/v2/REPOSITORY/` and follows where it leads; the answer is a success (200, 206).
    fn get(
        &self,
        repository: &Repository,
        path: &str,
        headers: &[(&str, &str)],
        what: &dyn Fn() -> String,
    ) -> Result<(Uri, Response<Body>), RegistryError> {
        let url = self.below(repository, path)?;
        let (url, mut response) =
            self.ask(repository, &Call { method: Method::GET, url, headers, scope: repository.pull_scope(), what }, None)?;
        match response.status().as_u16() {
            200 | 206 => Ok((url, response)),
            status => Err(refusal(repository, &url, status, &mut response, what)),
        }
    }

    /// Returns an address below `/v2/REPOSITORY/`.
    pub(super) fn below(&self, repository: &Repository, path: &str) -> Result<Uri, RegistryError> {
        let base = repository.base(&self.http)?;
        http::join(&base, &format!("/v2/{}/{path}", repository.path)).ok_or_else(|| RegistryError::Host(repository.host.clone()))
    }

    /// Sends a request, with the authorization that the registry asks for, and follows where it leads; what comes back is
    /// neither a redirect nor a first challenge.
    pub(super) fn ask(
        &self,
        repository: &Repository,
        call: &Call<'_>,
        mut body: Option<&mut Opener<'_>>,
    ) -> Result<(Uri, Response<Body>), RegistryError> {
        let base = repository.base(&self.http)?;
        let token_key = (base.to_string(), call.scope.clone());
        let mut authorization = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&token_key).cloned();
        let mut asked = false;
        let mut url = call.url.clone();
        let mut hops = 0;
        loop {
            let mut all = call.headers.to_vec();
            // Only where the challenge came from: a redirect to another host, port or scheme gets nothing.
            if let Some(value) = authorization.as_deref().filter(|_| http::same_origin(&url, &base)) {
                all.push(("authorization", value));
            }
            let response = match &mut body {
                None => self.http.send(&call.method, &url, &all, None)?,
                Some(open) => {
                    let (mut reader, length) = open().map_err(|source| RegistryError::Read { what: (call.what)(), source })?;
                    self.http.send(&call.method, &url, &all, Some((&mut reader, length)))?
                }
            };
            match response.status().as_u16() {
                401 if !asked && http::same_origin(&url, &base) => {
                    asked = true;
                    authorization = self.answer_challenge(repository, &base, &response, &call.scope, call.what)?;
                    if let Some(value) = &authorization {
                        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token_key.clone(), value.clone());
                    }
                    url = call.url.clone();
                }
                // The other three would make a GET of anything.
                status @ (301 | 302 | 303 | 307 | 308)
                    if matches!(status, 307 | 308) || matches!(call.method, Method::GET | Method::HEAD) =>
                {
                    hops += 1;
                    url = self.redirect(&url, &response, hops)?;
                }
                _ => return Ok((url, response)),
            }
        }
    }

    fn redirect(&self, url: &Uri, response: &Response<Body>, hops: usize) -> Result<Uri, RegistryError> {
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refused = || RegistryError::Redirect { url: url.to_string(), to: location.chars().take(200).collect() };
        let next = http::join(url, location).filter(|_| hops <= REDIRECTS_MAX).ok_or_else(refused)?;
        self.http.require_secure(&next).map_err(|_| refused())?;
        let authority = |u: &Uri| u.authority().map_or(String::new(), |a| a.to_string());
        // A registry elsewhere must not make us ask this machine's own services.
        if http::is_loopback(&authority(&next)) && !http::is_loopback(&authority(url)) {
            return Err(refused());
        }
        Ok(next)
    }

    fn answer_challenge(
        &self,
        repository: &Repository,
        base: &Uri,
        response: &Response<Body>,
        scope: &str,
        what: &dyn Fn() -> String,
    ) -> Result<Option<String>, RegistryError> {
        let host = || repository.host.clone();
        let values: Vec<&str> = response.headers().get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok()).collect();
        let challenge = Challenge::parse(values.iter().copied())
            .ok_or_else(|| RegistryError::Challenge { host: host(), challenge: values.join(", ").chars().take(200).collect() })?;
        let config = self.http.config();
        let credential = credentials::find(&config.auth_files, &config.helper_dirs, repository)
            .map_err(|source| RegistryError::Credentials { host: host(), source })?;
        let value = auth::authorize(&self.http, base, &challenge, scope, credential.as_ref())?;
        value.map(Some).ok_or_else(|| RegistryError::Denied {
            what: what(),
            host: host(),
            message: "it asks for a password, and no credentials are known for it".into(),
        })
    }
}

/// A blob on its way; see [`Client::open_blob`].
pub struct BlobReader<'a> {
    client: &'a Client,
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    body: Option<(Uri, Pumped<Ends>)>,
    /// Bytes of the answer that we have already: Range was not understood.
    skip: u64,
    done: u64,
    /// `done` at the last failure: new bytes make the patience new.
    done_before: u64,
    pause: Pause<'a>,
}

impl BlobReader<'_> {
    fn what(&self) -> String {
        format!("blob {} of {}/{}", self.digest, self.repository.host, self.repository.path)
    }

    fn connect(&mut self) -> Result<(), RegistryError> {
        let range = format!("bytes={}-", self.done);
        let headers: &[(&str, &str)] = if self.done > 0 { &[("range", &range)] } else { &[] };
        let path = format!("blobs/{}", self.digest);
        let (url, response) = self.client.get(self.repository, &path, headers, &|| self.what())?;
        self.skip = match response.status().as_u16() {
            206 if self.done > 0 && range_starts_at(&response) == Some(self.done) => 0,
            206 => {
                let message = "not the range that was asked for".into();
                return Err(RegistryError::Status { url: url.to_string(), status: 206, message });
            }
            _ => self.done,
        };
        let body = Pumped::start(response.into_body().into_reader(), self.client.config().ends());
        let body = body.map_err(|source| RegistryError::Body { url: url.to_string(), source })?;
        self.body = Some((url, body));
        Ok(())
    }

    /// Reads what comes next of the answer at hand; none: it ended early.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let size = self.size;
        loop {
            let Some((url, body)) = &mut self.body else {
                self.connect()?;
                continue;
            };
            let n = match body.read(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if self.client.config().ends()() => return Err(RegistryError::Interrupted),
                Err(source) => return Err(RegistryError::Body { url: url.to_string(), source }),
            };
            if n == 0 && self.done < size {
                return Err(RegistryError::Truncated { url: url.to_string(), received: self.done, expected: size });
            }
            let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(n);
            self.skip -= again as u64;
            buffer.copy_within(again..n, 0);
            let new = n - again;
            if new as u64 > size - self.done {
                return Err(RegistryError::Size { what: self.what(), expected: size, found: self.done + new as u64 });
            }
            self.done += new as u64;
            if new > 0 || n == 0 {
                return Ok(new);
            }
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.take(buffer) {
                Ok(n) => return Ok(n),
                Err(e) => {
                    self.body = None;
                    if self.done > self.done_before {
                        self.pause = Pause::new(self.client);
                        self.done_before = self.done;
                    }
                    self.pause.before_retry(e).map_err(io::Error::other)?;
                }
            }
        }
    }
}

/// Makes an error of an answer that is no success.
pub(super) fn refusal(
    repository: &Repository,
    url: &Uri,
    status: u16,
    response: &mut Response<Body>,
    what: &dyn Fn() -> String,
) -> RegistryError {
    let message = error_message(response.body_mut());
    match status {
        404 => RegistryError::NotFound { what: what(), host: repository.host.clone() },
        401 | 403 => RegistryError::Denied { what: what(), host: repository.host.clone(), message },
        _ => RegistryError::Status { url: url.to_string(), status, message },
    }
}

fn range_starts_at(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn content_type(response: &Response<Body>) -> String {
    let value = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_string()
}

fn read_capped(url: &Uri, body: &mut Body, limit_bytes: u64, what: &dyn Fn() -> String) -> Result<Vec<u8>, RegistryError> {
    let announced = body.content_length();
    let mut bytes = Vec::new();
    let mut reader = body.as_reader().take(limit_bytes + 1);
    reader.read_to_end(&mut bytes).map_err(|source| RegistryError::Body { url: url.to_string(), source })?;
    if bytes.len() as u64 > limit_bytes {
        return Err(RegistryError::TooLarge { what: what(), limit_bytes });
    }
    match announced {
        Some(expected) if (bytes.len() as u64) < expected => {
            Err(RegistryError::Truncated { url: url.to_string(), received: bytes.len() as u64, expected })
        }
        _ => Ok(bytes),
    }
}

/// Returns the messages of the specification's error body; empty when it has another form.
pub(super) fn error_message(body: &mut Body) -> String {
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
    let Ok(parsed) = serde_json::from_slice::<Errors>(&bytes) else { return String::new() };
    let texts: Vec<String> = parsed.errors.into_iter().take(3).map(|e| if e.message.is_empty() { e.code } else { e.message }).collect();
    // It is shown on a terminal: no control characters of a stranger's.
    texts.join("; ").chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
