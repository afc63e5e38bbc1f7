//! The frame of the pages that reports are written as: one HTML file that needs nothing but itself. Pure.
//!
//! No script, no font, no picture comes from elsewhere, and the page's own policy forbids it: a page is safe to be kept
//! as a build's artefact, whatever names of files and steps it shows. Who reads it in the dark gets dark colours
//! (`prefers-color-scheme`), since colours are named by what they mean and never written as numbers in a body.
//!
//! What a newcomer gets wrong: all text from outside passes [`escape`], attributes too; bodies are put together as
//! strings, and nothing behind them would notice.

use crate::ui::text;

/// What a colour stands for; a body writes `var(--hit)`, or an element has the class `hit` ([`Mark::class`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Taken from the cache.
    Hit,
    /// Taken from another machine's cache.
    Remote,
    /// Run, since something that it is made of changed.
    Built,
    /// Run, since an earlier step's result differs.
    Dragged,
    /// Ended in an error.
    Failed,
    /// Work that is no step: pulls, transfers, exports.
    Work,
    /// Not reached, or not known.
    Unknown,
}

/// Each mark with its name, its light and its dark colour: told apart by lightness too, so that no reader depends on hue.
const COLOURS: [(Mark, &str, &str, &str); 7] = [
    (Mark::Hit, "hit", "#2e9d6a", "#3fb37f"),
    (Mark::Remote, "remote", "#2a7fc4", "#5aa9e6"),
    (Mark::Built, "built", "#e8871e", "#f0a04b"),
    (Mark::Dragged, "dragged", "#f3c37a", "#8f6a35"),
    (Mark::Failed, "failed", "#c62f3e", "#ef6673"),
    (Mark::Work, "work", "#7b6fb8", "#9d92da"),
    (Mark::Unknown, "unknown", "#b9bec5", "#565d67"),
];

impl Mark {
    /// Returns the class that paints an element: its `fill` in a picture, its `background` as `.swatch`.
    pub fn class(self) -> &'static str {
        COLOURS.iter().find(|c| c.0 == self).map_or("unknown", |c| c.1)
    }
}

/// One page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The title, as plain text.
    pub title: String,
    /// A line beneath it, as plain text: of what and when.
    pub about: String,
    /// Rules of this page, after those that all have.
    pub style: String,
    /// What it shows, as HTML.
    pub body: String,
}

impl Page {
    /// Returns the whole file.
    pub fn render(&self) -> String {
        let (title, about) = (escape(&self.title), escape(&self.about));
        let about = if about.is_empty() { String::new() } else { format!("<p class=\"about\">{about}</p>\n") };
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{}{STYLE}{}</style>\n</head>\n<body>\n<header><h1>{title}</h1>\n{about}</header>\n\
             <main>\n{}\n</main>\n</body>\n</html>\n",
            colours(),
            self.style,
            self.body,
        )
    }
}

/// Returns the text of an element or of a quoted attribute: nothing in it is markup, no control character is left.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text::printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Returns one line that says what the colours mean.
pub fn legend(entries: &[(Mark, &str)]) -> String {
    let entry = |(mark, text): &(Mark, &str)| format!("<li><span class=\"swatch {}\"></span>{}</li>", mark.class(), escape(text));
    format!("<ul class=\"legend\">{}</ul>\n", entries.iter().map(entry).collect::<String>())
}

/// Returns a row of figures with what they count: `("12", "steps")`.
pub fn figures(entries: &[(String, &str)]) -> String {
    let entry = |(value, name): &(String, &str)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    format!("<dl class=\"figures\">{}</dl>\n", entries.iter().map(entry).collect::<String>())
}

fn colours() -> String {
    let all = |ground: &str, pick: fn(&(Mark, &'static str, &'static str, &'static str)) -> &'static str| {
        let marks: String = COLOURS.iter().map(|c| format!("--{}:{};", c.1, pick(c))).collect();
        format!(":root{{{ground}{marks}}}")
    };
    let (light, dark) = (all(LIGHT, |c| c.2), all(DARK, |c| c.3));
    let classes: String = COLOURS.iter().map(|(_, n, ..)| format!(".{n}{{fill:var(--{n})}}.swatch.{n}{{background:var(--{n})}}")).collect();
    format!("{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n{classes}\n")
}

const LIGHT: &str = "--ground:#ffffff;--panel:#f5f6f8;--line:#d9dde2;--text:#1c2026;--dim:#616a75;--strong:#000000;";
const DARK: &str = "--ground:#14171b;--panel:#1d2127;--line:#363c45;--text:#e3e6ea;--dim:#98a1ad;--strong:#ffffff;";

/// What all pages look like: a narrow screen scrolls a wide picture and nothing else.
const STYLE: &str = "\
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:14px/1.45 system-ui,sans-serif}
header,main{max-width:1480px;margin:0 auto;padding:0 24px}
header{padding-top:24px}
h1{font-size:22px;line-height:1.25;margin:0}
h2{font-size:16px;margin:28px 0 8px}
p{margin:8px 0;max-width:90ch}
.about,.dim{color:var(--dim)}
.about{margin:4px 0 0}
code,.mono{font:12.5px/1.45 ui-monospace,monospace}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:6px;background:var(--panel)}
svg{display:block}
svg text{fill:var(--text);font:12px system-ui,sans-serif}
svg text.dim{fill:var(--dim)}
svg text.mono{font:12px ui-monospace,monospace}
.figures{display:flex;flex-wrap:wrap;gap:8px 32px;margin:16px 0}
.figures dt{color:var(--dim);font-size:12px}
.figures dd{margin:0;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:12px 0;padding:0;color:var(--dim);font-size:12.5px}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:500;font-size:12.5px;white-space:nowrap}
td.number,th.number{text-align:right;white-space:nowrap}
td code{overflow-wrap:anywhere}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_no_markup() {
        let cases = [
            ("a <script>&\"'", "a &lt;script&gt;&amp;&quot;&#39;"),
            ("RUN \x1b[31mred\x1b[0m\x00", "RUN red"),
            ("rm \u{202e}fdp.x", "rm fdp.x"),
            ("漢字", "漢字"),
        ];
        for (given, want) in cases {
            assert_eq!(escape(given), want, "{given:?}");
        }
        let page = Page { title: "<b>".into(), about: "a & b".into(), style: String::new(), body: legend(&[(Mark::Hit, "<i>")]) }.render();
        assert!(page.contains("<title>&lt;b&gt;</title>") && page.contains("a &amp; b") && page.contains("&lt;i&gt;"), "{page}");
        assert!(!page.contains("<b>") && !page.contains("<i>"));
    }

    #[test]
    fn a_page_needs_nothing_but_itself() {
        let page = Page { title: "t".into(), ..Page::default() }.render();
        for elsewhere in ["http:", "https:", "url(", "<script", "<link", "@import", "src="] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        assert!(page.contains("default-src 'none'") && page.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn each_mark_has_its_colours() {
        let classes: std::collections::BTreeSet<_> = COLOURS.iter().map(|c| c.0.class()).collect();
        assert_eq!(classes.len(), COLOURS.len());
        assert_eq!(figures(&[("3".into(), "steps")]), "<dl class=\"figures\"><div><dt>steps</dt><dd>3</dd></div></dl>\n");
    }
}
