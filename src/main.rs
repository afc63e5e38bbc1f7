//! The `ply` program.
fn main() {}
