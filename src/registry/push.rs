//! Pushes blobs and documents.
//!
//! A blob that the registry has is not sent, one that it has in another repository is mounted from there. What is sent
//! goes as one PUT; where that breaks, in pieces, so that a broken transfer goes on where it broke and a limit on the
//! size of requests (413) is kept. A registry checks the digest itself when a blob is complete; ours is the one of the
//! bytes that were verified when they entered the store.
//!
//! What a newcomer would get wrong: the upload's address is the registry's to choose, anew with each answer, on whatever
//! host; it gets no credentials of another origin.

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Method, Response, Uri};

use super::client::{Call, Client, Repository, refusal};
use super::error::Recovery;
use super::hosts;
use super::pause::Pause;
use super::rules::Place;
use super::{Ends, RegistryError};
use crate::digest::Digest;
use crate::image::manifest::Descriptor;

/// The size of a piece: a broken one is sent again.
const PIECE_BYTES: u64 = 32 << 20;

/// Opens a blob at a position of its bytes.
pub type BlobSource<'s> = dyn Fn(u64) -> io::Result<Box<dyn Read>> + Sync + 's;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Present,
    /// It was taken from another repository of the registry.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// How an attempt to send a blob failed.
enum Failure {
    /// With this; again in pieces, if it is worth it.
    Broken(RegistryError),
    /// The request is too big for the server.
    TooBig(RegistryError),
    /// The server knows nothing of the upload any more.
    Lost(RegistryError),
}

impl From<RegistryError> for Failure {
    fn from(e: RegistryError) -> Self {
        match e {
            RegistryError::Status { status: 413, .. } => Self::TooBig(e),
            e => Self::Broken(e),
        }
    }
}

impl Client {
    /// Makes sure that a repository has a blob.
    ///
    /// `mount` names repositories of the same registry that may have it; `open` gives its bytes, more than once if need
    /// be; `sent` is told how many bytes went out.
    pub fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        mount: &[String],
        open: &BlobSource<'_>,
        sent: &dyn Fn(u64),
    ) -> Result<Sent, RegistryError> {
        let place = &self.place_to_push(repository)?;
        let upload = Upload { client: self, place, blob, mount, open, sent };
        if upload.patiently(|| upload.is_there())? {
            return Ok(Sent::Present);
        }
        upload.send()
    }

    /// Puts a manifest or index under a tag or its digest.
    pub fn push_document(&self, repository: &Repository, tag_or_digest: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let place = self.place_to_push(repository)?;
        let what = || format!("{}/{}:{tag_or_digest}", repository.host, repository.path);
        self.patiently(self.config().retry, || {
            let url = self.below(&place, &format!("manifests/{tag_or_digest}"))?;
            let headers: &[(&str, &str)] = &[("content-type", media_type)];
            let call = Call { method: Method::PUT, url, headers, scope: push_scope(&place, &[]), what: &what };
            let mut open = || -> io::Result<(Box<dyn Read + '_>, u64)> { Ok((Box::new(bytes), bytes.len() as u64)) };
            let answer = self.ask(&place, &call, Some(&mut open))?;
            let (_, response) = expect(&place, answer, &[200, 201, 202], &what)?;
            kept_as(&response, &Digest::of(bytes), &what)
        })
    }

    /// Returns whether a repository has a manifest or index of this digest.
    pub fn has_document(&self, repository: &Repository, digest: &Digest, accept: &str) -> Result<bool, RegistryError> {
        let place = self.place_to_push(repository)?;
        let what = || format!("{}/{}@{digest}", repository.host, repository.path);
        self.patiently(self.config().retry, || {
            let url = self.below(&place, &format!("manifests/{digest}"))?;
            let headers: &[(&str, &str)] = &[("accept", accept)];
            let call = Call { method: Method::HEAD, url, headers, scope: push_scope(&place, &[]), what: &what };
            let (_, response) = expect(&place, self.ask(&place, &call, None)?, &[200, 404], &what)?;
            Ok(response.status().as_u16() == 200)
        })
    }
}

/// One blob on its way to a repository.
struct Upload<'u> {
    client: &'u Client,
    place: &'u Place,
    blob: &'u Descriptor,
    mount: &'u [String],
    open: &'u BlobSource<'u>,
    sent: &'u dyn Fn(u64),
}

impl Upload<'_> {
    fn what(&self) -> String {
        format!("blob {} of {}/{}", self.blob.digest, self.place.at.host, self.place.at.path)
    }

    /// Tries again what fails in passing.
    fn patiently<T>(&self, attempt: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        self.client.patiently(self.client.config().retry, attempt)
    }

    fn ask(&self, method: Method, url: Uri, headers: &[(&str, &str)], accepted: &[u16]) -> Result<(Uri, Response<Body>), RegistryError> {
        let what = || self.what();
        let call = Call { method, url, headers, scope: push_scope(self.place, self.mount), what: &what };
        expect(self.place, self.client.ask(self.place, &call, None)?, accepted, &what)
    }

    fn is_there(&self) -> Result<bool, RegistryError> {
        let url = self.client.below(self.place, &format!("blobs/{}", self.blob.digest))?;
        let (_, response) = self.ask(Method::HEAD, url, &[], &[200, 404])?;
        let announced = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        // One of another size is no such blob, whatever it is called; some servers say 0 where they send no body.
        Ok(response.status().as_u16() == 200 && announced.is_none_or(|length| length == 0 || length == self.blob.size))
    }

    fn send(&self) -> Result<Sent, RegistryError> {
        for from in self.mount {
            let path = format!("blobs/uploads/?mount={}&from={from}", self.blob.digest);
            // Who may not read there is answered by an upload of its own, or by a refusal: no matter.
            if let Ok((url, response)) = self.client.below(self.place, &path).and_then(|url| self.ask(Method::POST, url, &[], &[201, 202]))
            {
                match response.status().as_u16() {
                    201 => return Ok(Sent::Mounted),
                    _ => self.abandon(&url, &response),
                }
            }
        }
        let retry = self.client.config().retry;
        let (mut pause, mut lost) = (Pause::new(retry), Pause::new(retry));
        let mut whole = true;
        loop {
            let attempt = self.begin().map_err(Failure::from).and_then(|at| {
                let sent = if whole { self.in_one(at) } else { self.in_pieces(at, &mut pause) };
                sent.map_err(|e| match e {
                    Failure::Broken(e @ RegistryError::NotFound { .. }) => Failure::Lost(e),
                    e => e,
                })
            });
            match attempt {
                Ok(()) => return Ok(Sent::Uploaded),
                Err(Failure::TooBig(e)) if !whole => return Err(e),
                Err(Failure::TooBig(_)) => whole = false,
                Err(Failure::Lost(e)) => self.client.wait_as(&mut lost, Recovery::Broken, e)?,
                Err(Failure::Broken(e)) => {
                    self.client.wait(&mut pause, e)?;
                    // The answer alone may have been lost.
                    match self.is_there() {
                        Ok(true) => return Ok(Sent::Uploaded),
                        Ok(false) => {}
                        Err(e) => self.client.wait(&mut pause, e)?,
                    }
                    // Small ones are not worth more than another try.
                    whole = self.blob.size <= PIECE_BYTES;
                }
            }
        }
    }

    /// Begins an upload and returns its address.
    fn begin(&self) -> Result<Uri, RegistryError> {
        let url = self.client.below(self.place, "blobs/uploads/")?;
        let (url, response) = self.ask(Method::POST, url, &[], &[202])?;
        self.location(&url, &response)
    }

    /// Gives up an upload that was begun unasked; what comes of it is the registry's own matter.
    fn abandon(&self, url: &Uri, response: &Response<Body>) {
        if let Ok(location) = self.location(url, response) {
            let _ = self.ask(Method::DELETE, location, &[], &[]);
        }
    }

    fn location(&self, url: &Uri, response: &Response<Body>) -> Result<Uri, RegistryError> {
        let text = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refused = || RegistryError::Redirect { url: url.to_string(), to: text.chars().take(200).collect() };
        let next = hosts::join(url, text).filter(|_| !text.is_empty()).ok_or_else(|| match text {
            "" => RegistryError::NoLocation { url: url.to_string() },
            _ => refused(),
        })?;
        self.client.http().require_secure(&next, self.place).map_err(|_| refused())?;
        // A registry elsewhere must not make us write to this machine's own services.
        if hosts::is_loopback(hosts::authority(&next)) && !hosts::is_loopback(hosts::authority(url)) {
            return Err(refused());
        }
        Ok(next)
    }

    /// Sends a part of the bytes.
    fn put(
        &self,
        method: Method,
        url: Uri,
        range: std::ops::Range<u64>,
        headers: &[(&str, &str)],
        accepted: &[u16],
    ) -> Result<(Uri, Response<Body>), RegistryError> {
        let what = || self.what();
        let mut all = vec![("content-type", "application/octet-stream")];
        all.extend_from_slice(headers);
        let call = Call { method, url, headers: &all, scope: push_scope(self.place, self.mount), what: &what };
        let length = range.end - range.start;
        let mut open = || -> io::Result<(Box<dyn Read + '_>, u64)> {
            let inner = (self.open)(range.start)?.take(length);
            let counted = Counted { inner, at: range.start, sent: self.sent, ends: self.client.config().ends() };
            Ok((Box::new(counted), length))
        };
        expect(self.place, self.client.ask(self.place, &call, Some(&mut open))?, accepted, &what)
    }

    fn in_one(&self, at: Uri) -> Result<(), Failure> {
        let url =
            with_query(&at, &format!("digest={}", self.blob.digest)).ok_or_else(|| RegistryError::NoLocation { url: at.to_string() })?;
        let (_, response) = self.put(Method::PUT, url, 0..self.blob.size, &[], &[200, 201, 204])?;
        Ok(kept_as(&response, &self.blob.digest, &|| self.what())?)
    }

    /// Sends the bytes piece by piece; after a failure the registry says how far it got.
    fn in_pieces(&self, mut at: Uri, pause: &mut Pause) -> Result<(), Failure> {
        let size = self.blob.size;
        let (mut done, mut furthest) = (0, 0);
        while done < size {
            let end = (done + PIECE_BYTES).min(size);
            let range = format!("{done}-{}", end - 1);
            match self.put(Method::PATCH, at.clone(), done..end, &[("content-range", &range)], &[202, 204, 201]) {
                Ok((url, response)) => {
                    at = self.location(&url, &response)?;
                    done = end;
                    // What is sent again because it was lost is no progress.
                    if done > furthest {
                        pause.restart();
                        furthest = done;
                    }
                }
                Err(e) if matches!(e, RegistryError::Status { status: 413, .. }) => return Err(Failure::TooBig(e)),
                Err(e) => {
                    // 416, too: it has more or less than we think.
                    self.client.wait(pause, e)?;
                    let (url, response) = self.patiently(|| self.ask(Method::GET, at.clone(), &[], &[200, 202, 204]))?;
                    done = received(&response).filter(|n| *n <= size).unwrap_or(0);
                    at = self.location(&url, &response).unwrap_or(at);
                }
            }
        }
        let url =
            with_query(&at, &format!("digest={}", self.blob.digest)).ok_or_else(|| RegistryError::NoLocation { url: at.to_string() })?;
        let (_, response) = self.patiently(|| self.ask(Method::PUT, url.clone(), &[], &[200, 201, 204]))?;
        Ok(kept_as(&response, &self.blob.digest, &|| self.what())?)
    }
}

/// Tells how many bytes go by, until it is asked to end.
struct Counted<'c, R> {
    inner: R,
    at: u64,
    sent: &'c dyn Fn(u64),
    ends: Ends,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not `Interrupted`: that kind is tried again.
        let n = if (self.ends)() { return Err(io::Error::other("interrupted")) } else { self.inner.read(buffer)? };
        self.at += n as u64;
        (self.sent)(self.at);
        Ok(n)
    }
}

/// Accepts an answer with one of these statuses.
fn expect(
    place: &Place,
    (url, mut response): (Uri, Response<Body>),
    accepted: &[u16],
    what: &dyn Fn() -> String,
) -> Result<(Uri, Response<Body>), RegistryError> {
    match response.status().as_u16() {
        status if accepted.contains(&status) => Ok((url, response)),
        status => Err(refusal(place, &url, status, &mut response, what)),
    }
}

fn push_scope(place: &Place, mount: &[String]) -> String {
    let mut scope = format!("repository:{}:pull,push", place.at.path);
    mount.iter().for_each(|from| scope.push_str(&format!(" repository:{from}:pull")));
    scope
}

/// Fails when the registry says that it keeps what was sent under another digest.
fn kept_as(response: &Response<Body>, expected: &Digest, what: &dyn Fn() -> String) -> Result<(), RegistryError> {
    let said = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse::<Digest>().ok());
    match said {
        Some(found) if found != *expected => Err(RegistryError::Digest { what: what(), expected: *expected, found }),
        _ => Ok(()),
    }
}

/// Returns how many bytes the registry has: `Range: 0-LAST`.
fn received(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get("range")?.to_str().ok()?;
    let last: u64 = value.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    // Nothing at all is `0-0` by custom; a single byte sent again does no harm.
    Some(if last == 0 { 0 } else { last + 1 })
}

fn with_query(url: &Uri, query: &str) -> Option<Uri> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}{query}").parse().ok()
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
