//! `SOURCE_DATE_EPOCH`: a number, or the time of something that lies elsewhere.
//!
//! What is not a number is for the caller to find out ([`Lowered::NeedsEpoch`](crate::graph::Lowered)); its time then
//! takes the place of the value, as if it had been given, and where it has none the variable counts as not given.

use crate::address::{self, SourceKind};
use crate::dockerfile::expand::Env;
use crate::dockerfile::instruction::{CopyArg, CopyArgs, Kind, Stage, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::{CopySource, EpochSource};

use super::Lowering;
use super::globals::declared;
use super::scope::Scope;

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What a stage must be whose time is taken.
const STAGE: &str = "such a stage is FROM scratch, ARGs, and one ADD of a URL or a repository";

impl Lowering<'_> {
    /// Reads `SOURCE_DATE_EPOCH`: seconds, `context`, a named context, or a stage that only downloads one thing. Returns
    /// what the caller has to find out first.
    pub(super) fn read_epoch(&mut self) -> Result<Option<EpochSource>, Diagnostic> {
        let value = self.facts.build_args.get(EPOCH).map(String::as_str).or_else(|| self.globals.value(EPOCH));
        let Some(value) = value.filter(|v| !v.is_empty()).map(str::to_string) else { return Ok(None) };
        if let Ok(seconds) = value.parse::<i64>() {
            self.epoch = Some(seconds);
            return Ok(None);
        }
        let source = self.epoch_source(&value)?;
        let Some(found) = self.facts.epoch else { return Ok(Some(source)) };
        self.epoch = found;
        self.epoch_text = found.map(|seconds| seconds.to_string());
        match &self.epoch_text {
            Some(text) if self.globals.value(EPOCH).is_some() => self.globals.set(EPOCH, text),
            _ => self.globals.unset(EPOCH),
        }
        Ok(None)
    }

    /// Returns a build argument; of an epoch that is not a number, what it led to.
    pub(super) fn build_arg(&self, name: &str) -> Option<&str> {
        let value = self.facts.build_args.get(name)?;
        if name == EPOCH && value.parse::<i64>().is_err() { self.epoch_text.as_deref() } else { Some(value.as_str()) }
    }

    fn epoch_source(&self, value: &str) -> Result<EpochSource, Diagnostic> {
        if value == "context" {
            return Ok(EpochSource::Context);
        }
        if self.facts.named_contexts.contains_key(value) {
            return Ok(EpochSource::Named(value.into()));
        }
        let stage = self.file.stages.iter().find(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(value)));
        if let Some(stage) = stage {
            return self.epoch_stage(stage);
        }
        let place = self.file.global_args.iter().find(|i| declared(i).any(|n| n == EPOCH)).map_or(Span::default(), |i| i.span);
        let error = self.error(place, format!("invalid SOURCE_DATE_EPOCH: `{value}` is no number of seconds, context or stage"));
        Err(error.hint("give seconds since 1970, `context`, the name of a --build-context, or a stage with one remote ADD"))
    }

    fn epoch_stage(&self, stage: &Stage) -> Result<EpochSource, Diagnostic> {
        let bad = |span: Span, why: String| Err(self.error(span, format!("SOURCE_DATE_EPOCH stage {why}")).hint(STAGE));
        let mut scope = self.globals.clone();
        scope.unset(EPOCH);
        if self.epoch_word(&stage.from.image, &scope)? != "scratch" {
            return bad(stage.from.image.span, "must use FROM scratch".into());
        }
        let mut found = None;
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Arg(declarations) => {
                    for declaration in declarations {
                        let name = &declaration.name.value;
                        if let Some(value) = self.facts.build_args.get(name) {
                            scope.set(name, value);
                        } else if let Some(default) = &declaration.default {
                            let value = self.epoch_word(default, &scope)?;
                            scope.set(name, &value);
                        }
                    }
                }
                Kind::Add(_) if found.is_some() => return bad(instruction.span, "must contain exactly one remote ADD".into()),
                Kind::Add(add) => found = Some(self.epoch_add(add, instruction.span, &scope)?),
                _ => {
                    let name = instruction.name.value.to_uppercase();
                    return bad(instruction.span, format!("does not meet source-only requirements: unsupported {name} instruction"));
                }
            }
        }
        found.map_or_else(|| bad(stage.instruction.span, "must contain exactly one remote ADD".into()), Ok)
    }

    fn epoch_add(&self, add: &CopyArgs, span: Span, scope: &Scope) -> Result<EpochSource, Diagnostic> {
        let [CopyArg::Path(word)] = add.sources.as_slice() else {
            return Err(self.error(span, "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source").hint(STAGE));
        };
        let text = self.epoch_word(word, scope)?;
        let checksum = add.checksum.as_ref().map(|w| Ok((self.epoch_word(w, scope)?, w.span))).transpose()?;
        match address::kind(&text).map_err(|e| self.address_error(word.span, e))? {
            SourceKind::Git(address) => {
                let wanted = checksum.as_ref().map(|(text, _)| text.as_str()).filter(|t| !t.is_empty());
                let address = address.with_flags(add.keep_git_dir, wanted).map_err(|e| self.address_error(word.span, e))?;
                Ok(EpochSource::Remote(CopySource::Git(Box::new(address), word.span), None))
            }
            SourceKind::Http => {
                let parse = |(text, span): (String, Span)| {
                    text.parse()
                        .map_err(|e| self.error(span, format!("unsupported checksum digest: {e}")).hint("write --checksum=sha256:HEX"))
                };
                let checksum = checksum.filter(|(text, _)| !text.is_empty()).map(parse).transpose()?;
                Ok(EpochSource::Remote(CopySource::Http(text, word.span), checksum))
            }
            SourceKind::Local => Err(self.error(span, "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD").hint(STAGE)),
        }
    }

    fn epoch_word(&self, word: &Word, scope: &Scope) -> Result<String, Diagnostic> {
        self.expander.word(&word.value, scope).map(|e| e.text).map_err(|e| self.expand_error(word.span, &e))
    }
}
