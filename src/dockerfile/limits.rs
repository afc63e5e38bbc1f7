//! How much a Dockerfile may ask for: a few bytes of text must not become gigabytes or hours.
//!
//! BuildKit has no such limits and runs out of memory. Each limit here is far above what real files need (none of
//! the 12,824 that we test with reaches one) and has an id that its error message ends with. What a
//! newcomer would get wrong: a limit on one value is not enough, since a file may use it ten thousand times.

use std::fmt;

/// The most that one word may become, in bytes.
pub const MAX_EXPANSION_BYTES: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_EXPANSION_DEPTH: usize = 64;
/// The most that all words of a file may read and write together while they are expanded, in bytes; a step of matching
/// `${v#p}`, `${v%p}` or `${v/p/r}` counts for an eighth.
pub const MAX_EXPANSION_TOTAL_BYTES: usize = 64 << 20;
/// The most that the whole graph may hold, in bytes: environments, commands, histories, configurations.
pub const MAX_GRAPH_BYTES: usize = 256 << 20;
/// The most that one pattern of an ignore file or `--exclude` may be long, in bytes.
pub const MAX_PATTERN_BYTES: usize = 16 << 10;

/// The most instructions that a file may have: each takes some hundred bytes of memory.
pub const MAX_INSTRUCTIONS: usize = 100_000;

/// A limit that a Dockerfile or ignore file went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Limit {
    ExpansionBytes,
    ExpansionDepth,
    ExpansionTotal,
    GraphBytes,
    PatternBytes,
    Instructions,
}

impl Limit {
    /// Returns the name that messages end with and the page of differences lists.
    pub const fn id(self) -> &'static str {
        match self {
            Self::ExpansionBytes => "expansion-bytes",
            Self::ExpansionDepth => "expansion-depth",
            Self::ExpansionTotal => "expansion-total",
            Self::GraphBytes => "graph-bytes",
            Self::PatternBytes => "pattern-bytes",
            Self::Instructions => "instructions",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExpansionBytes => write!(f, "the expansion is longer than {MAX_EXPANSION_BYTES} bytes")?,
            Self::ExpansionDepth => write!(f, "substitutions are nested more than {MAX_EXPANSION_DEPTH} deep")?,
            Self::ExpansionTotal => {
                write!(f, "the expansions of this file are longer than {MAX_EXPANSION_TOTAL_BYTES} bytes together")?;
            }
            Self::GraphBytes => write!(f, "what this file asks for takes more than {MAX_GRAPH_BYTES} bytes to describe")?,
            Self::PatternBytes => write!(f, "the pattern is longer than {MAX_PATTERN_BYTES} bytes")?,
            Self::Instructions => write!(f, "the file has more than {MAX_INSTRUCTIONS} instructions")?,
        }
        write!(f, " (limit {})", self.id())
    }
}
