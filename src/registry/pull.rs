//! Pulls documents and blobs: from the mirrors of a name in order, then from its registry.
//!
//! The order of trust: a digest that the caller gave wins over whatever the server says; a tag is worth what the
//! server says, its digest is computed from the bytes. `Docker-Content-Digest` is not read at all.
//!
//! What a newcomer would get wrong: a size is a claim of the manifest, and another one of the server. Where they differ
//! somebody lies, and no retry mends that; where bytes are missing at the end, the network failed, and it goes on by Range.

use std::collections::VecDeque;
use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Method, Response, Uri};

use super::client::{Call, Client, Repository, refusal};
use super::pause::Pause;
use super::rules::{NamedBy, Place};
use super::transfer::Pumped;
use super::{Ends, RegistryError, Retry};
use crate::digest::Digest;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, Document, media};

/// As many new bytes make the patience new: fewer would keep a registry alive that breaks after each.
const PROGRESS_BYTES: u64 = 64 << 10;

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

impl Client {
    /// Fetches the manifest or index that a tag or a digest leads to; at most 4 MiB.
    ///
    /// A digest is verified.
    pub fn document(&self, repository: &Repository, tag_or_digest: &str) -> Result<Fetched, RegistryError> {
        let expected = tag_or_digest.parse::<Digest>().ok();
        let by = if expected.is_some() { NamedBy::Digest } else { NamedBy::Tag };
        self.at_places(repository, by, &mut |place, retry| {
            let what = || format!("{}/{}:{tag_or_digest}", place.at.host, place.at.path);
            let fetched = self.patiently(retry, || self.document_at(place, tag_or_digest, &what))?;
            match expected {
                Some(expected) if expected != fetched.digest => {
                    return Err(RegistryError::Digest { what: what(), expected, found: fetched.digest });
                }
                // What a mirror's error page says is no reason to fail: there is another place.
                None if place.mirror && Document::parse(&fetched.bytes, Some(&fetched.media_type)).is_err() => {
                    return Err(RegistryError::NoDocument { what: what() });
                }
                _ => {}
            }
            self.note_served(repository, place);
            Ok(fetched)
        })
    }

    fn document_at(&self, place: &Place, tag_or_digest: &str, what: &dyn Fn() -> String) -> Result<Fetched, RegistryError> {
        let path = format!("manifests/{tag_or_digest}");
        let (url, mut response) = self.get(place, &path, &[("accept", media::MANIFEST_ACCEPT)], what)?;
        let media_type = content_type(&response);
        let bytes = read_capped(&url, response.body_mut(), DOCUMENT_MAX_BYTES, what)?;
        Ok(Fetched { digest: Digest::of(&bytes), bytes, media_type })
    }

    /// Fetches a small blob (an image's configuration) into memory; size and digest are verified.
    pub fn small_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if blob.size > DOCUMENT_MAX_BYTES {
            return Err(RegistryError::TooLarge { what: blob.digest.to_string(), limit_bytes: DOCUMENT_MAX_BYTES });
        }
        loop {
            let mut reader = self.open_blob(repository, blob);
            let mut bytes = Vec::new();
            let outcome = reader.read_to_end(&mut bytes);
            outcome.map_err(|e| RegistryError::from_io(e, || reader.what()))?;
            let found = Digest::of(&bytes);
            if found == blob.digest {
                return Ok(bytes);
            }
            if !self.was_wrong(&blob.digest) {
                return Err(RegistryError::Digest { what: reader.what(), expected: blob.digest, found });
            }
        }
    }

    /// Opens a blob for reading; connects at the first read.
    ///
    /// The reader gives exactly the descriptor's number of bytes or an error (a [`RegistryError`] inside an
    /// [`io::Error`]; [`RegistryError::from_io`] takes it out). A transfer that breaks goes on where it broke.
    /// **The digest is not verified**: whoever stores the bytes does that, in the same pass, and tells
    /// [`Client::was_wrong`].
    pub fn open_blob<'a>(&'a self, repository: &'a Repository, blob: &Descriptor) -> BlobReader<'a> {
        BlobReader {
            client: self,
            repository,
            digest: blob.digest,
            size: blob.size,
            places: None,
            body: None,
            ranges: true,
            skip: 0,
            done: 0,
            done_before: 0,
            pause: Pause::new(self.config().retry),
        }
    }

    /// Is told that the bytes of a blob were not what its digest says. Returns whether another place can be asked for it:
    /// it came from a mirror, which is left out from now on.
    pub fn was_wrong(&self, blob: &Digest) -> bool {
        let Some(place) = self.source_of(blob) else { return false };
        if !place.mirror {
            return false;
        }
        self.leave_out(&place, &RegistryError::WrongBytes { what: format!("blob {blob}") });
        true
    }

    /// Sends a GET below `/v2/REPOSITORY/` and follows where it leads; the answer is a success (200, 206).
    fn get(
        &self,
        place: &Place,
        path: &str,
        headers: &[(&str, &str)],
        what: &dyn Fn() -> String,
    ) -> Result<(Uri, Response<Body>), RegistryError> {
        let url = self.below(place, path)?;
        let call = Call { method: Method::GET, url, headers, scope: format!("repository:{}:pull", place.at.path), what };
        let (url, mut response) = self.ask(place, &call, None)?;
        match response.status().as_u16() {
            200 | 206 => Ok((url, response)),
            status => Err(refusal(place, &url, status, &mut response, what)),
        }
    }
}

/// A blob on its way; see [`Client::open_blob`].
pub struct BlobReader<'a> {
    client: &'a Client,
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    /// Where to ask, the first one now; none: not connected yet.
    places: Option<VecDeque<Place>>,
    body: Option<(Uri, Pumped<Ends>)>,
    /// Whether parts can be asked for.
    ranges: bool,
    /// Bytes of the answer that we have already: Range was not understood.
    skip: u64,
    done: u64,
    /// `done` at the failure from which the patience counts.
    done_before: u64,
    pause: Pause,
}

impl BlobReader<'_> {
    fn what(&self) -> String {
        let at = self.places.as_ref().and_then(VecDeque::front).map_or(self.repository, |p| &p.at);
        format!("blob {} of {}/{}", self.digest, at.host, at.path)
    }

    fn retry(&self, place: &Place) -> Retry {
        let retry = self.client.config().retry;
        if place.mirror { retry.hurried() } else { retry }
    }

    fn connect(&mut self) -> Result<(), RegistryError> {
        if self.places.is_none() {
            let places = VecDeque::from(self.client.places(self.repository, NamedBy::Digest)?);
            self.pause = Pause::new(places.front().map_or(self.client.config().retry, |p| self.retry(p)));
            self.places = Some(places);
        }
        let Some(place) = self.places.as_ref().and_then(VecDeque::front).cloned() else { unreachable!("the last place is never left") };
        let part = self.done > 0 && self.ranges;
        let range = format!("bytes={}-", self.done);
        let headers: &[(&str, &str)] = if part { &[("range", &range)] } else { &[] };
        let path = format!("blobs/{}", self.digest);
        let (url, response) = match self.client.get(&place, &path, headers, &|| self.what()) {
            // It has less than we have, or no idea of parts.
            Err(RegistryError::Status { status: 416, .. }) if part => return self.without_ranges(),
            answer => answer?,
        };
        self.skip = match response.status().as_u16() {
            206 if part && part_of(&response).is_some_and(|(from, of)| from == self.done && of.is_none_or(|of| of == self.size)) => 0,
            206 if part => return self.without_ranges(),
            206 => return Err(RegistryError::status(&url, 206, "a part that was not asked for")),
            _ => self.done,
        };
        let announced = response.body().content_length();
        if let Some(found) = announced.map(|length| length.saturating_add(self.done - self.skip)).filter(|found| *found != self.size) {
            return Err(RegistryError::Size { what: self.what(), expected: self.size, found });
        }
        self.client.note_source(&self.digest, &place);
        let body = Pumped::start(response.into_body().into_reader(), self.client.config().ends());
        let body = body.map_err(|source| RegistryError::Body { url: url.to_string(), source })?;
        self.body = Some((url, body));
        Ok(())
    }

    /// Asks for all of it again.
    fn without_ranges(&mut self) -> Result<(), RegistryError> {
        self.ranges = false;
        self.connect()
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
                // Whatever broke: all is here.
                Err(_) if self.done == size => return Ok(0),
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

    /// Decides what follows a failure: a pause and another try, another place, or the error.
    fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.body = None;
        let Some(place) = self.places.as_ref().and_then(VecDeque::front).cloned() else { return Err(error) };
        if self.done >= self.done_before + PROGRESS_BYTES {
            self.pause = Pause::new(self.retry(&place));
            self.done_before = self.done;
        }
        let Err(error) = self.client.wait(&mut self.pause, error) else { return Ok(()) };
        if !place.mirror || matches!(error, RegistryError::Interrupted) {
            return Err(error);
        }
        self.client.leave_out(&place, &error);
        let places = self.places.get_or_insert_default();
        places.pop_front();
        let next = places.front().cloned();
        self.ranges = true;
        self.pause = Pause::new(next.map_or(self.client.config().retry, |p| self.retry(&p)));
        Ok(())
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
                Err(e) => self.recover(e).map_err(io::Error::other)?,
            }
        }
    }
}

/// Returns where a part begins, and of how many bytes it is one where that is said.
fn part_of(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split('-').next()?.trim().parse().ok()?, whole.trim().parse().ok()))
}

fn content_type(response: &Response<Body>) -> String {
    let value = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_string()
}

pub(super) fn read_capped(url: &Uri, body: &mut Body, limit_bytes: u64, what: &dyn Fn() -> String) -> Result<Vec<u8>, RegistryError> {
    let announced = body.content_length();
    if announced.is_some_and(|length| length > limit_bytes) {
        return Err(RegistryError::TooLarge { what: what(), limit_bytes });
    }
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

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
