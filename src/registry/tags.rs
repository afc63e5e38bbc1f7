//! Lists the tags of a repository: page by page, as `Link` leads on.

use ureq::http::{Method, Response};

use super::client::{Call, Client, Repository, refusal};
use super::rules::{NamedBy, Place};
use super::{RegistryError, Retry, hosts};

/// The largest page; a registry decides how many tags are on one.
const PAGE_MAX_BYTES: u64 = 16 << 20;
/// More are no list but a loop.
const PAGES_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
struct Page {
    // Of a repository without tags it is null.
    tags: Option<Vec<String>>,
}

impl Client {
    /// Returns all tags of a repository, in the registry's order. They are the registry's words: not checked.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        self.at_places(repository, NamedBy::Tag, &mut |place, retry| self.tags_at(place, retry))
    }

    fn tags_at(&self, place: &Place, retry: Retry) -> Result<Vec<String>, RegistryError> {
        let what = || format!("the tags of {}/{}", place.at.host, place.at.path);
        let mut tags: Vec<String> = Vec::new();
        let mut next = self.below(place, "tags/list")?;
        for _ in 0..PAGES_MAX {
            let (page, link) = self.patiently(retry, || {
                let scope = format!("repository:{}:pull", place.at.path);
                let call = Call { method: Method::GET, url: next.clone(), headers: &[], scope, what: &what };
                let (url, mut response) = self.ask(place, &call, None)?;
                let status = response.status().as_u16();
                if status != 200 {
                    return Err(refusal(place, &url, status, &mut response, &what));
                }
                let link = link(&response).map(|to| hosts::join(&url, &to).filter(|next| hosts::same_origin(&url, next)).ok_or(to));
                let bytes = super::pull::read_capped(&url, response.body_mut(), PAGE_MAX_BYTES, &what)?;
                let page: Page = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Malformed { what: what(), source })?;
                Ok((page, link))
            })?;
            tags.extend(page.tags.unwrap_or_default());
            next = match link {
                None => return Ok(tags),
                Some(Ok(url)) => url,
                Some(Err(to)) => return Err(RegistryError::Redirect { url: next.to_string(), to: to.chars().take(200).collect() }),
            };
        }
        Err(RegistryError::TooLarge { what: what(), limit_bytes: PAGE_MAX_BYTES })
    }
}

/// Returns where the next page is: `Link: <…>; rel="next"`.
fn link<B>(response: &Response<B>) -> Option<String> {
    let value = response.headers().get("link")?.to_str().ok()?;
    let (to, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
    parameters.replace(['"', ' '], "").contains("rel=next").then(|| to.to_string())
}
