//! A build context: its files, their digests, ignore rules.

pub mod ignore;
