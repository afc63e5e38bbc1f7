//! Flags against the list that an instruction knows.

use std::sync::Arc;

use crate::dockerfile::instruction::Word;
use crate::dockerfile::shape::Flag;
use crate::dockerfile::source::{Diagnostic, Source};
use crate::dockerfile::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `=value`, once.
    Text,
    /// `=value`, as often as one likes.
    Texts,
    /// Nothing, `=true` or `=false`, once.
    Bool,
}

/// Flags that are known, not repeated where they must not be, and have the value that they need.
pub(super) struct Flags<'f>(&'f [Flag]);

/// Checks `flags` against `known`.
///
/// Errors: an unknown flag, one given twice, one without its value, a boolean that is none.
pub(super) fn read<'f>(source: &Arc<Source>, flags: &'f [Flag], known: &[(&'static str, Takes)]) -> Result<Flags<'f>, Diagnostic> {
    for (at, flag) in flags.iter().enumerate() {
        let wrong = |message: String, hint: String| Err(Diagnostic::error(source, flag.span, message).hint(hint));
        let name = &flag.name;
        let Some((_, takes)) = known.iter().find(|(known, _)| known == name) else {
            let error = Diagnostic::error(source, flag.span, format!("unknown flag `--{name}`"));
            let other_case = known.iter().map(|(known, _)| *known).find(|known| known.eq_ignore_ascii_case(name));
            return Err(match other_case.or_else(|| suggest::nearest(name, known.iter().map(|(known, _)| *known))) {
                Some(near) => error.hint(format!("did you mean `--{near}`?")),
                None if known.is_empty() => error.hint("this instruction takes no flags; `--` ends them"),
                None => {
                    let names: Vec<String> = known.iter().map(|(known, _)| format!("--{known}")).collect();
                    error.hint(format!("this instruction takes {}", names.join(", ")))
                }
            });
        };
        if *takes != Takes::Texts && flags[..at].iter().any(|earlier| earlier.name == *name) {
            return wrong(format!("flag `--{name}` given twice: duplicate flags are not allowed"), "keep one of them".into());
        }
        match (takes, &flag.value) {
            (Takes::Text | Takes::Texts, None) => {
                return wrong(format!("missing a value for the flag `--{name}`"), format!("write `--{name}=value`"));
            }
            (Takes::Bool, Some(value)) if value.value.is_empty() => {
                return wrong(format!("missing a value for the flag `--{name}`"), format!("write `--{name}` or `--{name}=true`"));
            }
            (Takes::Bool, Some(value)) if boolean(value).is_none() => {
                let message = format!("the flag `--{name}` takes a boolean, true or false, not `{}`", value.value);
                return wrong(message, format!("write `--{name}`, or leave it out"));
            }
            _ => {}
        }
    }
    Ok(Flags(flags))
}

fn boolean(value: &Word) -> Option<bool> {
    match value.value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

impl Flags<'_> {
    /// Returns the value of a flag that stands once, even an empty one.
    pub fn written(&self, name: &str) -> Option<Word> {
        self.0.iter().find(|flag| flag.name == name).and_then(|flag| flag.value.clone())
    }
    /// Returns the value of a flag that stands once; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<Word> {
        self.written(name).filter(|value| !value.value.is_empty())
    }
    /// Returns all values of a flag, in order.
    pub fn texts(&self, name: &str) -> Vec<Word> {
        self.0.iter().filter(|flag| flag.name == name).filter_map(|flag| flag.value.clone()).collect()
    }
    /// Returns a switch; none when it was not written.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.0.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_ref().is_none_or(|value| boolean(value) == Some(true)))
    }
}
