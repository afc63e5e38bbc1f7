//! COPY and ADD.

use std::collections::HashMap;

use super::Reader;
use super::flags::{self, Flags, Takes};
use crate::dockerfile::heredoc;
use crate::dockerfile::instruction::{CopyArg, CopyArgs, Heredoc, Word};
use crate::dockerfile::shape::Args;
use crate::dockerfile::source::Diagnostic;

const COPY: [(&str, Takes); 6] = [
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("from", Takes::Text),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Texts),
];

const ADD: [(&str, Takes); 7] = [
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("checksum", Takes::Text),
    ("keep-git-dir", Takes::Bool),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Texts),
];

impl Reader<'_, '_> {
    pub(super) fn copy(&self, heredocs: Vec<Heredoc>) -> Result<CopyArgs, Diagnostic> {
        self.sources_and_dest("COPY", &COPY, heredocs)
    }

    pub(super) fn add(&self, heredocs: Vec<Heredoc>) -> Result<CopyArgs, Diagnostic> {
        self.sources_and_dest("ADD", &ADD, heredocs)
    }

    fn sources_and_dest(&self, name: &str, known: &[(&'static str, Takes)], heredocs: Vec<Heredoc>) -> Result<CopyArgs, Diagnostic> {
        let mut words = self.words();
        let Some(dest) = words.pop().filter(|_| !words.is_empty()) else {
            return Err(self.wrong(format!("{name} requires at least two arguments, a source and a destination")));
        };
        let flags = flags::read(self.source, &self.shape.flags, known)?;
        if heredoc::announced(&dest.value).is_some() {
            let message = format!("{name} cannot take the heredoc `{}` as its destination", dest.value);
            return Err(Diagnostic::error(self.source, dest.span, message).hint(format!("write `{name} {} /path/of/the/file`", dest.value)));
        }
        // Of two heredocs with one name the last body counts for both.
        let bodies: HashMap<&str, &Heredoc> = heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc)).collect();
        let sources = words.into_iter().map(|word| source(word, &bodies)).collect();
        Ok(CopyArgs { sources, dest: Some(dest), json: matches!(self.shape.args, Args::Json(..)), ..options(&flags) })
    }
}

/// A word is a heredoc or a path. A heredoc that the line did not announce as a shell sees it has no body.
fn source(word: Word, bodies: &HashMap<&str, &Heredoc>) -> CopyArg {
    let Some(announced) = heredoc::announced(&word.value) else { return CopyArg::Path(word) };
    let found = bodies.get(announced.name.as_str());
    let mut heredoc = heredoc::empty(announced, word.span);
    if let Some(found) = found {
        heredoc.body = found.body.clone();
        heredoc.body_span = found.body_span;
    }
    CopyArg::Heredoc(heredoc)
}

fn options(flags: &Flags<'_>) -> CopyArgs {
    CopyArgs {
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.texts("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        ..CopyArgs::default()
    }
}
