//! What of a directory's content is in a context, and what of that a source takes: the one place where ignore rules,
//! `--exclude` and `--parents` patterns are asked.
//!
//! Nothing is read here: who walks (a directory of the host, a git tree) says what lies where. A directory may be hidden and
//! still have to be entered; what became of it is known only when its content is.

use crate::dockerfile::ignore::{IgnoreRules, Trail, Verdict, path_match};

use super::error::ContextError;
use super::resolve;

/// A `--parents` pattern, below the source's pivot.
#[derive(Debug, Clone)]
pub struct Include {
    rules: IgnoreRules,
    components: Vec<String>,
}

impl Include {
    /// Compiles a cleaned pattern.
    pub fn parse(pattern: &str) -> Result<Self, ContextError> {
        let rules =
            IgnoreRules::from_patterns([pattern]).map_err(|source| ContextError::Pattern { pattern: pattern.to_owned(), source })?;
        Ok(Self { rules, components: pattern.split('/').map(str::to_owned).collect() })
    }

    /// Whether something below the directory `path` can match; errs on the side of yes.
    fn may_match_below(&self, path: &[u8]) -> bool {
        for (i, name) in resolve::components(path).enumerate() {
            match self.components.get(i) {
                None => return false,
                Some(p) if p.contains("**") => return true,
                Some(p) => {
                    if !path_match(p, name).unwrap_or(true) {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// What the filters say of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// By ignore rules.
    pub hidden: bool,
    /// By the include pattern alone.
    pub included: bool,
    /// By all but the ignore rules.
    pub taken: bool,
    /// Whether a directory must be entered.
    pub enter: bool,
}

/// What decides over an item of a directory because of what decided over the directory.
#[derive(Debug, Clone, Default)]
pub struct Trails {
    ignore: Trail,
    exclude: Trail,
    include: Trail,
}

/// The filters of one source directory.
#[derive(Debug, Clone, Copy)]
pub struct Filters<'a> {
    /// The context's rules; none: nothing is hidden.
    pub ignore: Option<&'a IgnoreRules>,
    /// `--exclude`.
    pub exclude: Option<&'a IgnoreRules>,
    /// `--parents`.
    pub include: Option<&'a Include>,
}

impl Filters<'_> {
    /// Returns what the source directory itself, `source` in the tree, means for what it holds.
    pub fn trails_of_source(&self, source: &[u8]) -> Trails {
        let mut trails = Trails::default();
        if let Some(ignore) = self.ignore {
            let mut so_far = Vec::new();
            for name in resolve::components(source) {
                resolve::push(&mut so_far, name);
                trails.ignore = ignore.enter(&trails.ignore, &so_far, true).1;
            }
        }
        trails
    }

    /// Decides over one path, and returns what to hand down when it is a directory.
    ///
    /// `trails` are the directory's that it lies in, `in_tree` the path from the tree's root, `below` from the source.
    pub fn decide(&self, trails: &Trails, in_tree: &[u8], below: &[u8], is_directory: bool) -> (Decision, Trails) {
        let mut handed = Trails::default();
        let mut d = Decision { hidden: false, included: false, taken: true, enter: is_directory };
        if let Some(rules) = self.ignore {
            let (verdict, trail) = rules.enter(&trails.ignore, in_tree, is_directory);
            handed.ignore = trail;
            d.hidden = verdict != Verdict::Keep;
            d.enter &= verdict != Verdict::Ignore;
        }
        if let Some(rules) = self.exclude {
            let (verdict, trail) = rules.enter(&trails.exclude, below, is_directory);
            handed.exclude = trail;
            d.taken &= verdict == Verdict::Keep;
            d.enter &= verdict != Verdict::Ignore;
        }
        if let Some(include) = self.include {
            let (verdict, trail) = include.rules.enter(&trails.include, below, is_directory);
            handed.include = trail;
            let matched = verdict != Verdict::Keep;
            d.included = matched;
            d.taken &= matched;
            d.enter &= matched || include.may_match_below(below);
        }
        (d, handed)
    }
}
