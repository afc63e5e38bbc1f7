//! A download's body that goes on where it broke: Range with If-Range (RFC 9110, 13.1.5).
//!
//! It goes on only where the server proves that the content is still the one that began: by a strong `ETag`, or by a
//! `Last-Modified` that was a minute old when it was sent. Else the failure is the reader's, who starts again.
//!
//! What a newcomer would get wrong: a 200 to such a request is no failure, it is the whole content. If its validator is the
//! one that we know, the bytes that we have are skipped; if not, they are of another content and can't be used.

use std::io::Read;

use ureq::Body;
use ureq::http::Response;

use super::http::{Downloads, Wanted, broken, strong_validator};
use super::{RemoteError, Result};
use crate::address::redact;
use crate::registry::pause::Pause;
use crate::registry::transfer::Pumped;
use crate::store::GiveUp;

/// As many new bytes make the patience new.
const PROGRESS_BYTES: u64 = 64 << 10;

/// The body of an answer, and of those that go on with it.
pub(super) struct Resumed<'a> {
    downloads: &'a Downloads<'a>,
    wanted: &'a Wanted<'a>,
    body: Pumped<GiveUp<'a>>,
    /// What proves that the content is the same.
    validator: Option<String>,
    /// How many bytes there are, where the server said so.
    whole: Option<u64>,
    done: u64,
    /// Bytes of the answer that we have already.
    skip: u64,
    /// `done` at the failure from which the patience counts.
    done_before: u64,
    pause: &'a mut Pause,
}

impl<'a> Resumed<'a> {
    /// Begins with the answer to a whole request.
    pub(super) fn start(
        downloads: &'a Downloads<'a>,
        wanted: &'a Wanted<'a>,
        response: Response<Body>,
        pause: &'a mut Pause,
    ) -> Result<Self> {
        let validator = strong_validator(&response);
        let whole = length(&response);
        let body = Pumped::start(response.into_body().into_reader(), downloads.give_up).map_err(|e| broken(wanted.url, e))?;
        Ok(Self { downloads, wanted, body, validator, whole, done: 0, skip: 0, done_before: 0, pause })
    }

    /// Reads on; 0 is the end of the whole content.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.take(buffer) {
                Ok(n) => return Ok(n),
                Err(failure) => self.go_on(failure)?,
            }
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let n = self.body.read(buffer).map_err(|e| broken(self.wanted.url, e))?;
            if n == 0 && !buffer.is_empty() {
                return match self.whole.filter(|whole| *whole != self.done) {
                    Some(expected) => Err(RemoteError::Truncated { url: redact(self.wanted.url), received: self.done, expected }),
                    None => Ok(0),
                };
            }
            let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(n);
            self.skip -= again as u64;
            buffer.copy_within(again..n, 0);
            self.done += (n - again) as u64;
            if n > again || buffer.is_empty() {
                (self.wanted.watch)(self.done, self.whole);
                return Ok(n - again);
            }
        }
    }

    /// Asks for the rest, patiently; the failure where there is no going on.
    fn go_on(&mut self, failure: RemoteError) -> Result<()> {
        let Some(validator) = self.validator.clone().filter(|_| self.done > 0 && !(self.downloads.give_up)()) else { return Err(failure) };
        if self.done >= self.done_before + PROGRESS_BYTES {
            self.pause.restart();
            self.done_before = self.done;
        }
        let mut failure = failure;
        loop {
            self.downloads.wait(self.pause, failure)?;
            match self.ask_for_rest(&validator) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(RemoteError::Replaced { url: redact(self.wanted.url) }),
                Err(e) => failure = e,
            }
        }
    }

    /// Sends the request; no: the content is another one now.
    fn ask_for_rest(&mut self, validator: &str) -> Result<bool> {
        let headers = [("range".to_string(), format!("bytes={}-", self.done)), ("if-range".to_string(), validator.to_string())];
        let response = self.downloads.follow(self.wanted, &headers)?;
        match response.status().as_u16() {
            206 => {
                let Some((from, whole)) = part(&response) else { return Ok(false) };
                if from != self.done || whole.is_some() && self.whole.is_some() && whole != self.whole {
                    return Ok(false);
                }
                self.whole = self.whole.or(whole);
                self.skip = 0;
            }
            200 if strong_validator(&response).as_deref() == Some(validator) && length(&response) == self.whole => self.skip = self.done,
            200 | 416 => return Ok(false),
            status => return Err(RemoteError::Status { url: redact(self.wanted.url), status }),
        }
        let body = Pumped::start(response.into_body().into_reader(), self.downloads.give_up);
        self.body = body.map_err(|e| broken(self.wanted.url, e))?;
        Ok(true)
    }
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse().ok())
}

/// Returns where a part begins, and of how many bytes it is one where that is said.
fn part(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split('-').next()?.trim().parse().ok()?, whole.trim().parse().ok()))
}
