//! OCI manifest, index, configuration, references, platforms. Pure.

pub mod config;
pub mod platform;
pub mod reference;
pub mod users;
