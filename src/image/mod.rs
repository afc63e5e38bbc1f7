//! OCI manifest, index, config, references, platforms. Pure.

pub mod archive;
pub mod config;
pub mod json;
pub mod layout;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod select;
pub mod users;
