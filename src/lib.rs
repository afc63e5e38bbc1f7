//! Plywood: an image build engine with a layer cache.
//!
//! Imports go down only; `src/tests/architecture.rs` holds this table.
//!
//! ```text
//! main ─ cli ─ ui                                                  what people see
//!         │
//!         ├─ engine (build)      ├─ runner (run)      ├─ replay    use cases
//!         │
//!         ├─ dockerfile  graph  cache  context                     what to build, and why   (mostly pure)
//!         ├─ sandbox  snapshot  layer  image  store  registry  remote  history   how it is done and kept
//!         │
//!         └─ address  digest  path  fsio  sys                      primitives
//! ```

/// Where Plywood differs from BuildKit on purpose.
#[doc = include_str!("differences.md")]
pub mod differences {}

/// What is tried against Plywood, how it defends, and which test shows it.
#[doc = include_str!("defences.md")]
pub mod defences {}

pub mod address;
pub mod cache;
pub mod cli;
pub mod context;
pub mod digest;
pub mod dockerfile;
pub mod engine;
pub mod fsio;
pub mod graph;
pub mod history;
pub mod image;
pub mod layer;
pub mod path;
pub mod registry;
pub mod remote;
pub mod replay;
pub mod runner;
pub mod sandbox;
pub mod snapshot;
pub mod store;
pub mod sys;
pub mod ui;
