//! COPY and ADD: what is read from where, and what becomes of it.
//!
//! Nothing is looked up in a file system: patterns stay patterns. What a newcomer would get wrong: `--link` is dropped
//! when `--chmod` is given (BuildKit's behaviour), and `--exclude` is not expanded.

use crate::address::{self, GitAddress, SourceKind};
use crate::digest::Checksum;
use crate::dockerfile::ignore::has_wildcard;
use crate::dockerfile::instruction::{CopyArg, CopyArgs, Heredoc, Instruction, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::{AddOptions, CopyOp, CopySource, FileTree, Op};

use super::stage::{Work, image_name};
use super::stages::Origin;
use super::{Lowering, paths, values};

impl Lowering<'_> {
    pub(super) fn copy_step(
        &mut self,
        work: &mut Work<'_>,
        instruction: &Instruction,
        copy: &CopyArgs,
        is_add: bool,
    ) -> Result<(), Diagnostic> {
        let chown = self.flag(work, instruction, copy.chown.as_ref())?;
        let chmod = self.flag(work, instruction, copy.chmod.as_ref())?;
        let checksum = self.flag(work, instruction, copy.checksum.as_ref())?;
        if let (Some(mode), Some(word)) = (&chmod, &copy.chmod) {
            values::mode(mode).map_err(|e| self.value_error(word.span, &e))?;
        }
        let from_context = copy.from.as_ref().is_none_or(|f| f.value.is_empty());
        let mut sources = Vec::new();
        let mut shown = Vec::new();
        let mut inline = Vec::new();
        for source in &copy.sources {
            match source {
                CopyArg::Path(word) => {
                    let source = self.source(work, instruction, word, is_add, from_context)?;
                    shown.push(address::redact(source.text()));
                    sources.push(source);
                }
                CopyArg::Heredoc(heredoc) => inline.push(self.inline(work, instruction, heredoc)?),
            }
        }
        let checksum = match (&checksum, &copy.checksum) {
            (Some(checksum), Some(word)) => self.check_checksum(&mut sources, copy.sources.len(), checksum, word.span)?,
            _ => None,
        };
        for source in &mut sources {
            if let CopySource::Git(address, span) = source {
                let span = *span;
                **address = address.as_ref().clone().with_flags(copy.keep_git_dir, None).map_err(|e| self.address_error(span, e))?;
            }
        }
        let dest = match &copy.dest {
            Some(word) => self.expand(work, instruction, word)?,
            None => String::new(),
        };
        let from = match copy.from.as_ref().filter(|f| !f.value.is_empty()) {
            None => FileTree::Context(None),
            Some(word) => self.copy_tree(work, word)?,
        };
        for (name, _) in &inline {
            shown.push(format!("<<{name}"));
        }
        sources.extend(inline.into_iter().map(|(name, body)| CopySource::Inline(name, body)));

        let created_by = history(is_add, copy, chown.as_deref(), chmod.as_deref(), &shown, &dest);
        let op = CopyOp {
            sources,
            from,
            dest: paths::destination(work.workdir(), &dest),
            link: copy.link && chmod.is_none(),
            chown,
            chmod,
            parents: copy.parents,
            exclude: copy.exclude.iter().map(|w| w.value.clone()).collect(),
            add: is_add.then(|| AddOptions { checksum, keep_git_dir: copy.keep_git_dir.unwrap_or(false), unpack: copy.unpack }),
        };
        let title = address::redact(&self.expanded_text(work, instruction));
        let node = self.step(work, instruction, Op::Copy(Box::new(op)), &title);
        work.history(created_by, Some(node));
        Ok(())
    }

    /// Expands a flag's value; an empty one counts as not given.
    fn flag(&mut self, work: &Work<'_>, instruction: &Instruction, word: Option<&Word>) -> Result<Option<String>, Diagnostic> {
        let Some(word) = word else { return Ok(None) };
        Ok(Some(self.expand(work, instruction, word)?).filter(|v| !v.is_empty()))
    }

    fn source(
        &mut self,
        work: &Work<'_>,
        instruction: &Instruction,
        word: &Word,
        is_add: bool,
        from_context: bool,
    ) -> Result<CopySource, Diagnostic> {
        let text = self.expand(work, instruction, word)?;
        let span = self.at(word.span);
        let kind = address::kind(&text).map_err(|e| self.address_error(span, e))?;
        match kind {
            SourceKind::Git(address) if is_add => Ok(CopySource::Git(address, span)),
            SourceKind::Http if is_add => Ok(CopySource::Http(text, span)),
            SourceKind::Git(_) => Err(self.remote_copy(span, &text, "git repository")),
            SourceKind::Http => Err(self.remote_copy(span, &text, "URL")),
            SourceKind::Local => {
                if from_context && self.facts.no_context && !has_wildcard(&text) {
                    let error = self.error(span, format!("COPY source `{text}`: not found, as there is no build context"));
                    return Err(error.hint("the Dockerfile came alone, from standard input; give a directory to copy from"));
                }
                if from_context {
                    self.check_ignored(instruction, &text, word.span, is_add);
                }
                Ok(CopySource::Path(text, span))
            }
        }
    }

    pub(super) fn address_error(&self, span: Span, message: String) -> Diagnostic {
        self.error(span, message)
            .hint("a repository is HOST/PATH.git?KEY=VALUE or HOST/PATH.git#REF:DIRECTORY, each key once, and as the flags say")
    }

    fn remote_copy(&self, span: Span, text: &str, what: &str) -> Diagnostic {
        self.error(span, format!("COPY source can't be a {what}: `{}`", address::redact(text))).hint("ADD takes remote sources")
    }

    /// Returns a heredoc's name and content.
    fn inline(&mut self, work: &Work<'_>, instruction: &Instruction, heredoc: &Heredoc) -> Result<(String, Vec<u8>), Diagnostic> {
        let mut body = if heredoc.chomp { without_tabs(&heredoc.body) } else { heredoc.body.clone() };
        if heredoc.expand {
            let expanded =
                self.expander.for_bodies().word(&body, &work.done.scope).map_err(|e| self.expand_error(line_of(heredoc, e.line), &e))?;
            self.note_unmatched(work, instruction, &expanded.unmatched);
            body = expanded.text;
        }
        Ok((heredoc.name.clone(), body.into_bytes()))
    }

    /// Gives a repository its checksum, and returns a URL's.
    fn check_checksum(&self, sources: &mut [CopySource], count: usize, checksum: &str, span: Span) -> Result<Option<Checksum>, Diagnostic> {
        if count != 1 {
            let error = self.error(span, format!("checksum `{checksum}` can't be specified for multiple sources"));
            return Err(error.hint("give each source an ADD of its own"));
        }
        match sources {
            [CopySource::Git(address, _)] => {
                **address = GitAddress::clone(address).with_flags(None, Some(checksum)).map_err(|e| self.address_error(span, e))?;
                Ok(None)
            }
            [CopySource::Http(..)] => checksum
                .parse()
                .map(Some)
                .map_err(|e| self.error(span, format!("unsupported checksum digest: {e}")).hint("write --checksum=sha256:HEX")),
            _ => {
                let error = self.error(span, format!("checksum `{checksum}` requires an HTTP(S) or Git source"));
                Err(error.hint("files of the context are known by their content anyway: leave the flag out"))
            }
        }
    }

    /// Returns the tree that `COPY --from` reads.
    fn copy_tree(&mut self, work: &Work<'_>, word: &Word) -> Result<FileTree, Diagnostic> {
        let span = self.at(word.span);
        let origin = self.copy_origin(&word.value, span)?;
        self.tree(work, &origin, span).map_err(|stage| {
            let (read, this) = (&self.stage_label(stage), &work.info.label);
            let error = self.error(span, format!("cannot copy from stage `{read}`, it needs to be defined before current stage `{this}`"));
            error.hint(format!("move the stage `{read}` above this one"))
        })
    }

    /// Returns the files of an origin. Errors: the stage that is not built yet.
    pub(super) fn tree(&mut self, work: &Work<'_>, origin: &Origin, span: Span) -> Result<FileTree, usize> {
        match origin {
            Origin::Files(name) => Ok(FileTree::Context(Some(name.clone()))),
            Origin::Stage(index) => self.finished[*index].as_ref().map(|f| f.tree.clone()).ok_or(*index),
            Origin::Scratch => Ok(FileTree::Node(self.base_node(None, work.index, span, "FROM scratch".into()))),
            Origin::Image(request) => {
                let title = format!("FROM {}", image_name(origin));
                Ok(FileTree::Node(self.base_node(Some(request), work.index, span, title)))
            }
        }
    }

    pub(super) fn stage_label(&self, index: usize) -> String {
        self.file.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

/// Returns where a line of a heredoc's body stands.
fn line_of(heredoc: &Heredoc, line: usize) -> Span {
    let start = heredoc.body_span.start as usize;
    let before: usize = heredoc.body.split_inclusive('\n').take(line).map(str::len).sum();
    let length = heredoc.body[before..].lines().next().map_or(0, str::len);
    Span::new(start + before, start + before + length)
}

/// Returns BuildKit's history text: `--exclude`, `--link` and `--from` are not in it.
fn history(is_add: bool, copy: &CopyArgs, chown: Option<&str>, chmod: Option<&str>, shown: &[String], dest: &str) -> String {
    let mut out = String::from(if is_add { "ADD" } else { "COPY" });
    if copy.parents {
        out.push_str(" --parents");
    }
    for (flag, value) in [("--chown", chown), ("--chmod", chmod)] {
        out.extend(value.map(|value| format!(" {flag}={value}")));
    }
    for source in shown {
        out.push(' ');
        out.push_str(source);
    }
    format!("{out} {dest} # buildkit")
}

/// Removes the tabs at the start of each line: `<<-`.
pub(super) fn without_tabs(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
