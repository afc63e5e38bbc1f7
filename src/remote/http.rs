//! Downloads: what a URL answers, streamed into the store, and asked again only whether it changed.
//!
//! What a URL last gave is a value of the store ([`DOWNLOADS`]): digest, validator, date. A server that answers 304, or
//! 200 with the validator that we know, has not changed, and no body is read. A checksum that is known beforehand needs no
//! server at all where the blob is at hand.
//!
//! A download that breaks goes on where it broke, when the server's validator can prove that it is still the same content
//! ([`resume`]); else it starts again.
//!
//! What a newcomer would get wrong: `Last-Modified` counts as a validator only when the answer was sent a minute later or
//! more (RFC 9110, 8.8.2.2): a file may change twice in a second. And `Authorization` goes to the URL's own origin only.

use std::fs::File;
use std::io::{self, Read, Seek as _};

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{Response, Uri};

use super::resume::Resumed;
use super::{RemoteError, Result, Watch};
use crate::address::{Parts, redact};
use crate::digest::{Checksum, ChecksumHasher, Digest};
use crate::registry::hosts::{is_loopback, join, same_origin};
use crate::registry::http::Trust;
use crate::registry::pause::Pause;
use crate::registry::transfer;
use crate::registry::{Client, Recovery, RegistryError, Retry};
use crate::store::{DOWNLOADS, GiveUp, Store};

/// As many as Go's client follows.
const REDIRECTS_MAX: usize = 10;
/// How long failures in passing are waited out; the pauses double.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);
/// How much later than `Last-Modified` an answer must be for the date to be a proof.
const SETTLED_SECS: i64 = 60;

/// Fetches by http and https.
pub struct Downloads<'a> {
    /// The way outside: proxies, certificates.
    pub client: &'a Client,
    /// Where content is kept.
    pub store: &'a Store,
    /// Whether to end.
    pub give_up: GiveUp<'a>,
    /// The time now, in unix seconds.
    pub now_secs: i64,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Where; may hold credentials.
    pub url: &'a str,
    /// `Authorization`, instead of what the URL's credentials make.
    pub authorization: Option<&'a str>,
    /// What the content must be.
    pub checksum: Option<&'a Checksum>,
    /// Who is told of the transfer.
    pub watch: Watch<'a>,
}

/// What a URL gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Of the content: the name of its blob, which may be gone from the store.
    pub digest: Digest,
    /// `Last-Modified`, in unix seconds.
    pub modified_secs: Option<i64>,
    /// What a server is asked with: a header's name and value.
    validator: Option<(String, String)>,
    /// When it was last of use, in unix seconds.
    used_secs: i64,
    /// Where it is from, for people: without credentials.
    #[serde(default)]
    shown: Option<String>,
}

/// What a server says to one request.
enum Answer {
    Unchanged,
    New(Download),
}

impl Downloads<'_> {
    /// Finds out what a URL gives now. What is new is stored on the way.
    pub fn resolve(&self, wanted: &Wanted<'_>) -> Result<Download> {
        let known = self.known(wanted.url)?;
        match (self.with_retries(wanted, known.as_ref())?, known) {
            (Answer::Unchanged, Some(known)) => self.note(wanted.url, known),
            (Answer::Unchanged, None) => Err(RemoteError::Status { url: redact(wanted.url), status: 304 }),
            (Answer::New(download), _) => self.note(wanted.url, download),
        }
    }

    /// Opens content that [`Downloads::resolve`] found; fetches it again where its blob is gone.
    pub fn open(&self, wanted: &Wanted<'_>, download: &Download) -> Result<File> {
        if let Some(file) = self.stored(&download.digest)? {
            return Ok(file);
        }
        let again = self.fetch(wanted)?;
        if again.digest != download.digest {
            return Err(RemoteError::Changed { url: redact(wanted.url), expected: download.digest, found: again.digest });
        }
        self.stored(&again.digest)?.ok_or_else(|| crate::store::StoreError::NoBlob(again.digest).into())
    }

    /// Opens the content of `wanted.checksum`: from the store where the URL gave it before, else from the URL.
    pub fn open_pinned(&self, wanted: &Wanted<'_>, checksum: &Checksum) -> Result<(File, Download)> {
        if let Some(known) = self.known(wanted.url)?
            && let Some(mut file) = self.stored(&known.digest)?
            && (*checksum == Checksum::Sha256(known.digest) || checksum_of(&mut file, checksum)? == *checksum)
        {
            let known = self.note(wanted.url, known)?;
            return Ok((file, known));
        }
        let download = self.fetch(&Wanted { checksum: Some(checksum), ..*wanted })?;
        let file = self.stored(&download.digest)?.ok_or(crate::store::StoreError::NoBlob(download.digest))?;
        Ok((file, download))
    }

    /// Returns the digest that a URL last gave; nobody is asked.
    pub fn last_known(&self, url: &str) -> Result<Option<Digest>> {
        Ok(self.known(url)?.map(|d| d.digest))
    }

    fn fetch(&self, wanted: &Wanted<'_>) -> Result<Download> {
        match self.with_retries(wanted, None)? {
            Answer::New(download) => self.note(wanted.url, download),
            Answer::Unchanged => Err(RemoteError::Status { url: redact(wanted.url), status: 304 }),
        }
    }

    /// Opens a blob of the store, verified; none: it is not there, or not what it was.
    fn stored(&self, digest: &Digest) -> Result<Option<File>> {
        if !self.store.has_blob(digest)? {
            return Ok(None);
        }
        let Some(mut reader) = self.store.verifying_reader(digest)? else { return Ok(None) };
        if io::copy(&mut reader, &mut io::sink()).is_err() {
            self.store.discard_blob(digest)?;
            return Ok(None);
        }
        Ok(self.store.open_blob(digest)?)
    }

    fn known(&self, url: &str) -> Result<Option<Download>> {
        let row = self.store.load_blob_row(DOWNLOADS, &row_name(url))?;
        Ok(row.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn note(&self, url: &str, download: Download) -> Result<Download> {
        let download = Download { used_secs: self.now_secs, shown: Some(redact(url)), ..download };
        let bytes = serde_json::to_vec(&download).expect("strings and numbers are serialisable");
        self.store.save_blob_row(DOWNLOADS, &row_name(url), &bytes)?;
        Ok(download)
    }

    fn with_retries(&self, wanted: &Wanted<'_>, known: Option<&Download>) -> Result<Answer> {
        let retry = self.client.config().retry;
        let mut pause = Pause::new(Retry { patience: PATIENCE.min(retry.patience), ..retry });
        loop {
            match self.once(wanted, known, &mut pause) {
                Err(_) if (self.give_up)() => return Err(RemoteError::Cancelled),
                Err(error) => self.wait(&mut pause, error)?,
                answer => return answer,
            }
        }
    }

    /// Waits, or returns the error when trying again can't help or was tried enough.
    pub(super) fn wait(&self, pause: &mut Pause, error: RemoteError) -> Result<()> {
        match pause.after(recovery(&error), None) {
            None => Err(error),
            Some(time) if transfer::pause(time, self.give_up) => Ok(()),
            Some(_) => Err(RemoteError::Cancelled),
        }
    }

    fn once(&self, wanted: &Wanted<'_>, known: Option<&Download>, pause: &mut Pause) -> Result<Answer> {
        let validator = known.and_then(|k| k.validator.clone());
        let response = self.follow(wanted, validator.as_slice())?;
        let url = || redact(wanted.url);
        match response.status().as_u16() {
            304 if validator.is_some() => return Ok(Answer::Unchanged),
            // A part of the content was not asked for.
            200..=205 | 207..=299 => {}
            status => return Err(RemoteError::Status { url: url(), status }),
        }
        let (modified_secs, answered) = (date(&response, "last-modified"), validator_of(&response));
        // Some servers know their validators but not what to do with them.
        if let (Some(ours), Some(theirs)) = (&validator, &answered)
            && ours == theirs
            && ours.0 == "if-none-match"
        {
            return Ok(Answer::Unchanged);
        }
        let digest = self.keep(wanted, response, pause)?;
        Ok(Answer::New(Download { digest, modified_secs, validator: answered, used_secs: 0, shown: None }))
    }

    /// Streams an answer's body into the store.
    fn keep(&self, wanted: &Wanted<'_>, response: Response<Body>, pause: &mut Pause) -> Result<Digest> {
        let body = Resumed::start(self, wanted, response, pause)?;
        let hasher = wanted.checksum.map(Checksum::hasher);
        let mut checked = Checked { wanted, body, hasher, failure: None };
        let stored = self.store.put_blob(&mut checked, None);
        match (checked.failure, stored) {
            (Some(failure), _) => Err(failure),
            (None, stored) => Ok(stored?.0),
        }
    }

    /// Sends a GET and follows where it leads.
    pub(super) fn follow(&self, wanted: &Wanted<'_>, more: &[(String, String)]) -> Result<Response<Body>> {
        let (first, from_url) = target(wanted.url)?;
        let authorization = wanted.authorization.map(str::to_owned).or(from_url);
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            // What is stored is what the server has: not packed for the way.
            let mut headers = vec![("accept-encoding".to_string(), "identity".to_string())];
            headers.extend_from_slice(more);
            if let Some(value) = authorization.clone().filter(|_| same_origin(&url, &first)) {
                headers.push(("authorization".into(), value));
            }
            let response = self.get(&url, headers)?;
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirect(&url, &response)?,
                _ => return Ok(response),
            }
        }
        let why = "there are too many redirects";
        Err(RemoteError::Redirect { url: redact(wanted.url), to: redact(&url.to_string()), why })
    }

    fn get(&self, url: &Uri, headers: Vec<(String, String)>) -> Result<Response<Body>> {
        let shown = redact(&url.to_string());
        let failed = |source: RegistryError| RemoteError::Transfer { url: shown.clone(), source: Box::new(source) };
        let agent = self.client.http().agent(url, Trust::Machine).map_err(failed)?;
        let target = url.clone();
        let answered = transfer::patiently(self.give_up, move || {
            let mut request = agent.get(target);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.call()
        });
        let answered = answered.map_err(|e| broken(&shown, e))?.ok_or(RemoteError::Cancelled)?;
        answered.map_err(|e| failed(RegistryError::transport(&shown, e)))
    }
}

/// Checks what passes; why it failed is kept beside the reader's error.
struct Checked<'a> {
    wanted: &'a Wanted<'a>,
    body: Resumed<'a>,
    hasher: Option<ChecksumHasher>,
    failure: Option<RemoteError>,
}

impl Checked<'_> {
    /// Judges the content at its end.
    fn judge(&mut self) -> Result<()> {
        let (Some(hasher), Some(expected)) = (self.hasher.take(), self.wanted.checksum) else { return Ok(()) };
        let found = hasher.finish();
        if found == *expected {
            return Ok(());
        }
        let url = redact(self.wanted.url);
        Err(RemoteError::Checksum { url, expected: expected.to_string(), found: found.to_string() })
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.body.next(buffer).and_then(|n| match n {
            0 if !buffer.is_empty() => self.judge().map(|()| 0),
            n => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&buffer[..n]);
                }
                Ok(n)
            }
        });
        outcome.map_err(|failure| {
            self.failure = Some(failure);
            io::Error::other("the download failed")
        })
    }
}

pub(super) fn broken(url: &str, source: io::Error) -> RemoteError {
    let url = redact(url);
    RemoteError::Transfer { url: url.clone(), source: Box::new(RegistryError::Body { url, source }) }
}

fn recovery(error: &RemoteError) -> Recovery {
    match error {
        RemoteError::Status { status: 408 | 429 | 502 | 503 | 504, .. } => Recovery::Outage,
        RemoteError::Status { status: 500, .. } | RemoteError::Truncated { .. } | RemoteError::Replaced { .. } => Recovery::Broken,
        RemoteError::Transfer { source, .. } => source.recovery(),
        _ => Recovery::Never,
    }
}

/// Names a URL's row. Hashed: the URL may hold credentials.
fn row_name(url: &str) -> String {
    blake3::Hasher::new_derive_key("plywood download, v1").update(url.as_bytes()).finalize().to_hex().to_string()
}

/// Returns where to ask, without credentials and fragment, and the header that the credentials make.
fn target(url: &str) -> Result<(Uri, Option<String>)> {
    let bad = || RemoteError::NotUrl(redact(url));
    let parts = Parts::of(url).ok_or_else(bad)?;
    let authorization = parts
        .credentials()
        .map(|(user, password)| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))));
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let query = parts.query.map(|q| format!("?{q}")).unwrap_or_default();
    let plain = format!("{}://{}{}{query}", parts.scheme, parts.authority, escape(path));
    Ok((plain.parse().map_err(|_| bad())?, authorization))
}

/// Escapes what may not stand in a URL's path as it is; what is escaped already stays.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        match b {
            b'!'..=b'~' if !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Decides where a redirect leads: never from https to http, nor from elsewhere to this machine's own services.
fn redirect(url: &Uri, response: &Response<Body>) -> Result<Uri> {
    let location = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let refused = |why| {
        let to: String = redact(location).chars().filter(|c| !c.is_control()).take(200).collect();
        RemoteError::Redirect { url: redact(&url.to_string()), to, why }
    };
    let scheme = location.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.contains(':') && !matches!(scheme, "http:" | "https:") {
        return Err(refused("only http and https are spoken"));
    }
    // Credentials of a Location would be the server's to give, and ours to leak.
    let next = join(url, location).and_then(|u| target(&u.to_string()).ok()).ok_or_else(|| refused("it is no address"))?.0;
    if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        return Err(refused("it gives up TLS"));
    }
    let host = |u: &Uri| u.authority().map_or(String::new(), ToString::to_string);
    if is_loopback(&host(&next)) && !is_loopback(&host(url)) {
        return Err(refused("it leads to this machine"));
    }
    Ok(next)
}

fn date(response: &Response<Body>, name: &str) -> Option<i64> {
    let text = response.headers().get(name)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(text).ok().map(|t| t.timestamp().as_second())
}

/// Returns with what to ask next time whether the content is still this.
fn validator_of(response: &Response<Body>) -> Option<(String, String)> {
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned);
    if let Some(etag) = header("etag") {
        return Some(("if-none-match".into(), etag));
    }
    let settled = date(response, "date")?.saturating_sub(date(response, "last-modified")?) >= SETTLED_SECS;
    header("last-modified").filter(|_| settled).map(|value| ("if-modified-since".into(), value))
}

/// Returns what proves, to the server, that a part belongs to this content; weaker validators prove it to us only.
pub(super) fn strong_validator(response: &Response<Body>) -> Option<String> {
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let settled = || date(response, "date")?.saturating_sub(date(response, "last-modified")?).ge(&SETTLED_SECS).then_some(());
    match header("etag") {
        Some(etag) if etag.starts_with('"') => Some(etag),
        _ => settled().and_then(|()| header("last-modified")),
    }
}

/// Computes a file's checksum of the kind of `like`; the file is at its start afterwards.
fn checksum_of(file: &mut File, like: &Checksum) -> Result<Checksum> {
    let mut hasher = like.hasher();
    let mut buffer = vec![0; 128 << 10];
    let mut read = || -> io::Result<()> {
        loop {
            match file.read(&mut buffer)? {
                0 => return file.rewind(),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    read().map_err(|source| crate::store::StoreError::Io { doing: "reading", path: "a blob".into(), source })?;
    Ok(hasher.finish())
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
