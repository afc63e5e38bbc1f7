//! Fetches what lies elsewhere: files by http(s), git repositories by the host's `git`.
//!
//! | file | holds |
//! |---|---|
//! | `http` | [`Downloads`]: what a URL answers, into the store; asked again only whether it changed |
//! | `resume` | a body that goes on where it broke |
//! | `git` | [`Git`]: refs resolved, commits fetched into a shared repository, trees checked out |
//!
//! What both promise: a cancel ends the work within moments, nothing half done is taken for whole, credentials are in no
//! message, argument or file. Not here: what a build does with it, and where an address stands in a Dockerfile.
//!
//! What a newcomer would get wrong: the two have *two* steps. [`Downloads::resolve`] and [`Git::resolve`] find out which
//! content is meant (a digest, a commit), which is all that a cached step needs; fetching that content comes later or never.

mod error;
mod git;
mod http;
mod resume;

pub use error::RemoteError;
pub use git::{CheckedOut, Checkout, Commit, Git, GitAccess};
pub use http::{Download, Downloads, Wanted};

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, RemoteError>;

/// Is told how far a transfer is: bytes done, bytes in all.
pub type Watch<'a> = &'a dyn Fn(u64, Option<u64>);
