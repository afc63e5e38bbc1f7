//! x
use crate::sys::process::FilterInstruction;
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ownership {
    Real,
    Fake,
}
/// x
pub fn filter(_o: Ownership) -> Vec<FilterInstruction> {
    vec![FilterInstruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }]
}
