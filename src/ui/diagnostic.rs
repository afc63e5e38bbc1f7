//! Errors and warnings as rustc shows them: the message, the place, the line, a caret, a hint.
//!
//! The one place that words a [`Diagnostic`]. The span may cover many lines (a heredoc); only its first line is
//! underlined.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::address::redact_in_place;
use crate::dockerfile::source::{Diagnostic, Severity, Source, Span};
use crate::ui::style::Paint;
use crate::ui::text;

/// Returns the whole text of a diagnostic, with a line end.
pub fn render(diagnostic: &Diagnostic, paint: Paint) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = text::printable(&diagnostic.message);
    let mut title = level.clone().primary_title(message.as_str());
    if let Some(rule) = diagnostic.rule {
        title = title.id(rule);
    }
    let label = diagnostic.label.as_deref().map(text::one_line);
    // Whoever reads a log need not know the credentials of an address; the marks below stay where they are.
    let shown = diagnostic.source.as_ref().map(|source| redact_in_place(source.text())).unwrap_or_default();
    let group = match &diagnostic.source {
        Some(source) => {
            let annotation = AnnotationKind::Primary.span(first_line(source, diagnostic.span)).label(label.as_deref());
            title.element(Snippet::source(shown.as_str()).path(source.name()).annotation(annotation))
        }
        None => annotate_snippets::Group::with_title(title),
    };
    let renderer = match paint {
        Paint::Plain => Renderer::plain(),
        Paint::Coloured => Renderer::styled(),
    };
    let mut out = renderer.render(&[group]);
    out.push('\n');
    if let Some(hint) = &diagnostic.hint {
        out.push_str(&format!("{} {}\n", paint.hint("hint:"), text::printable(hint)));
    }
    out
}

/// Returns the part of a span on its first line, as byte range on character boundaries, one character at least.
fn first_line(source: &Source, span: Span) -> std::ops::Range<usize> {
    let all = source.text();
    let floor = |mut i: usize| {
        while !all.is_char_boundary(i) {
            i -= 1;
        }
        i
    };
    let start = floor((span.start as usize).min(all.len()));
    let end = floor((span.end as usize).clamp(start, all.len()));
    let line_end = all[start..].find('\n').map_or(all.len(), |n| start + n);
    let line_end = if all[start..line_end].ends_with('\r') { line_end - 1 } else { line_end };
    start..end.min(line_end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_its_line() {
        let source = Source::new("Dockerfile", "FROM x\n\nCOPY app/ /srv/\nRUN <<E\nä\nE\n");
        let at = |needle: &str| {
            let start = source.text().find(needle).unwrap();
            Span::new(start, start + needle.len())
        };
        let error = Diagnostic::error(&source, at("app/"), "COPY source `app/` matches nothing in the context")
            .hint("`app/` is excluded by .dockerignore line 3");
        let want = "\
error: COPY source `app/` matches nothing in the context
 --> Dockerfile:3:6
  |
3 | COPY app/ /srv/
  |      ^^^^
hint: `app/` is excluded by .dockerignore line 3
";
        assert_eq!(render(&error, Paint::Plain), want);
        let warning = Diagnostic::warning(&source, at("<<E\nä\nE"), "SomeRule", "\x1b[31mbad\x07 thing").label("here");
        let want = "\
warning[SomeRule]: bad thing
 --> Dockerfile:4:5
  |
4 | RUN <<E
  |     ^^^ here
";
        assert_eq!(render(&warning, Paint::Plain), want);
    }

    #[test]
    fn odd_spans_do_no_harm() {
        for text in ["", "x", "FROM ä\n", "a\r\nb"] {
            let source = Source::new("D", text);
            for start in 0..8 {
                for end in 0..8 {
                    let shown = render(&Diagnostic::error(&source, Span { start, end }, "m"), Paint::Plain);
                    assert!(shown.starts_with("error: m\n"), "{shown}");
                }
            }
        }
    }
}
