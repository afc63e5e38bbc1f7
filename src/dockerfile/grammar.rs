//! The pest parser of `grammar/dockerfile.pest`.
//!
//! Only `shape` and `heredoc` speak to it; no other module sees a pest pair. pest's own messages are never
//! shown: a rule that does not match is an answer ("this is no JSON array"), not a text for people. Never
//! call `Position::line_col` on what comes out: it counts lines from the start of the text.

use pest::Parser as _;
use pest::iterators::Pair;

#[derive(pest_derive::Parser)]
#[grammar = "../grammar/dockerfile.pest"]
struct Grammar;

/// Matches `rule` at the start of `text`; returns its pair, or none when it does not match.
pub(super) fn matching(rule: Rule, text: &str) -> Option<Pair<'_, Rule>> {
    Grammar::parse(rule, text).ok()?.next()
}
