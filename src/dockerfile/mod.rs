//! From a text to stages of typed instructions. Pure.

pub mod expand;
pub mod instruction;
pub mod source;
