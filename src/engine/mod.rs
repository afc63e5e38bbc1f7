//! A build: gather facts, plan, execute, commit, assemble.

pub mod cancel;
pub mod copy;
pub mod event;
pub mod export;
pub mod request;
pub mod sources;
