//! A Dockerfile as pieces that can be moved: each instruction with the comment above it, and what lies between.
//!
//! Pure. Text is moved as it stands; nothing is formatted anew.

use std::sync::Arc;

use crate::dockerfile;
use crate::dockerfile::instruction::{CopyArg, CopyArgs, Instruction, Kind};
use crate::dockerfile::source::Source;

/// A Dockerfile in pieces.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    pub pieces: Vec<Piece>,
}

/// One piece.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Its lines, the last line end included.
    pub text: String,
    /// What stands there; none: comments, empty lines, what stands before the first FROM.
    pub of: Option<Placed>,
}

/// An instruction in its stage.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    /// The stage's name, or `stage-0`.
    pub stage: String,
    /// What it says.
    pub instruction: Instruction,
}

impl Piece {
    /// Returns what the instruction says; none: there is none.
    pub fn kind(&self) -> Option<&Kind> {
        self.of.as_ref().map(|placed| &placed.instruction.kind)
    }
}

impl Sheet {
    /// Takes a text apart; none: it is no valid Dockerfile.
    pub fn of(text: &str) -> Option<Self> {
        let source: Arc<Source> = Source::new("Dockerfile", text);
        let file = dockerfile::parse(&source).ok()?;
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut placed: Vec<(usize, usize, Placed)> = Vec::new();
        for (index, stage) in file.stages.iter().enumerate() {
            let name = stage.name.clone().unwrap_or_else(|| format!("stage-{index}"));
            for instruction in std::iter::once(&stage.instruction).chain(&stage.instructions) {
                let (first, last) = (source.line(instruction.span.start), last_line(&source, instruction));
                placed.push((first - 1, last, Placed { stage: name.clone(), instruction: instruction.clone() }));
            }
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        for (first, end, of) in placed {
            // A comment directly above belongs to its instruction; directives at the top stay there.
            let is_comment = |line: &&str| line.trim_start().starts_with('#');
            let above = lines.get(at..first)?.iter().rev().take_while(|line| is_comment(line)).count();
            let above = if at == 0 && above == first { 0 } else { above };
            if at < first - above {
                pieces.push(Piece { text: lines[at..first - above].concat(), of: None });
            }
            let mut text = lines.get(first - above..end)?.concat();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            pieces.push(Piece { text, of: Some(of) });
            at = end;
        }
        if at < lines.len() {
            pieces.push(Piece { text: lines[at..].concat(), of: None });
        }
        Some(Self { pieces })
    }

    /// Returns the text.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// Returns the places of a stage's instructions, FROM included.
    pub fn stage(&self, name: &str) -> Vec<usize> {
        let of = |piece: &Piece| piece.of.as_ref().is_some_and(|placed| placed.stage == name);
        (0..self.pieces.len()).filter(|at| of(&self.pieces[*at])).collect()
    }

    /// Returns the stages' names, each once.
    pub fn stages(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for placed in self.pieces.iter().filter_map(|piece| piece.of.as_ref()) {
            if names.last() != Some(&placed.stage) {
                names.push(placed.stage.clone());
            }
        }
        names
    }

    /// Moves the piece at `from` so that it stands before the one that is at `to` now.
    pub fn shift(&mut self, from: usize, to: usize) {
        let piece = self.pieces.remove(from);
        self.pieces.insert(if to > from { to - 1 } else { to }, piece);
    }
}

/// Returns the copy of a COPY or ADD that takes files of the context, paths only.
pub(super) fn context_copy(kind: &Kind) -> Option<&CopyArgs> {
    match kind {
        Kind::Copy(copy) | Kind::Add(copy) if copy.from.is_none() => {
            copy.sources.iter().all(|s| matches!(s, CopyArg::Path(word) if !word.value.contains("://"))).then_some(copy)
        }
        _ => None,
    }
}

/// Returns the paths of a copy.
pub(super) fn paths(copy: &CopyArgs) -> impl Iterator<Item = &str> {
    copy.sources.iter().filter_map(|source| if let CopyArg::Path(word) = source { Some(word.value.as_str()) } else { None })
}

/// The line after an instruction's last one, heredocs included.
fn last_line(source: &Source, instruction: &Instruction) -> usize {
    let heredocs = match &instruction.kind {
        Kind::Run(run) => run.heredocs.iter().map(|h| h.body_span.end).max(),
        Kind::Copy(copy) | Kind::Add(copy) => {
            let bodies = copy.sources.iter().filter_map(|s| if let CopyArg::Heredoc(h) = s { Some(h.body_span.end) } else { None });
            bodies.max()
        }
        _ => None,
    };
    match heredocs {
        // The line of the delimiter comes after the body.
        Some(end) => source.line(end),
        None => source.line(instruction.span.end.saturating_sub(1).max(instruction.span.start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# syntax=docker/dockerfile:1\nARG A=1\n# the base\nFROM a AS x\n\n# does\n# things\nRUN one \\\n  # in it\n  two\nCOPY <<E /e\nbody\nE\nRUN <<A <<B\na\nA\nb\nB\nFROM b\nCMD c";

    #[test]
    fn pieces_make_up_the_text_and_keep_their_comments() {
        let sheet = Sheet::of(TEXT).unwrap();
        assert_eq!(sheet.text(), format!("{TEXT}\n"));
        let texts: Vec<&str> = sheet.pieces.iter().map(|p| p.text.as_str()).collect();
        let want = [
            "# syntax=docker/dockerfile:1\nARG A=1\n",
            "# the base\nFROM a AS x\n",
            "\n",
            "# does\n# things\nRUN one \\\n  # in it\n  two\n",
            "COPY <<E /e\nbody\nE\n",
            "RUN <<A <<B\na\nA\nb\nB\n",
            "FROM b\n",
            "CMD c\n",
        ];
        assert_eq!(texts, want);
        assert_eq!(sheet.stages(), ["x", "stage-1"]);
        assert_eq!(sheet.stage("x"), [1, 3, 4, 5]);
    }

    #[test]
    fn a_piece_is_moved_up_and_down() {
        let sheet = Sheet::of("FROM a\nRUN 1\nRUN 2\nRUN 3\n").unwrap();
        let moved = |from, to| {
            let mut sheet = sheet.clone();
            sheet.shift(from, to);
            sheet.text()
        };
        assert_eq!(moved(3, 1), "FROM a\nRUN 3\nRUN 1\nRUN 2\n");
        assert_eq!(moved(1, 4), "FROM a\nRUN 2\nRUN 3\nRUN 1\n");
    }
}
