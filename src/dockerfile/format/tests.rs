//! The style, case by case, and what must hold for any text.

use super::*;

fn formatted(text: &str) -> String {
    let source = Source::new("Dockerfile", text);
    let parts = format(&source).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(parts.iter().map(|part| part.before).collect::<String>(), text, "every byte belongs to one part");
    let once = super::text(&parts);
    let again = Source::new("Dockerfile", once.clone());
    assert_eq!(super::text(&format(&again).unwrap()), once, "formatting twice is formatting once: {text:?}");
    once
}

#[test]
fn the_style() {
    let cases = [
        ("keywords", "from a as b\nrun x\nHealthcheck none\n", "FROM a AS b\nRUN x\nHEALTHCHECK NONE\n"),
        ("blanks", "  FROM\ta  \n\tCOPY   a\t b  /c \n", "FROM a\nCOPY a b /c\n"),
        (
            "flags",
            "FROM  --platform=$A   a\nRUN  --mount=target=/a   --network=none\tx  y\n",
            "FROM --platform=$A a\nRUN --mount=target=/a --network=none x  y\n",
        ),
        ("empty lines", "\n\nFROM a\n\n\n\nRUN b\n\n\n", "FROM a\n\nRUN b\n"),
        ("the last line's end", "FROM a", "FROM a\n"),
        ("comments", "#a\n  # b  \nFROM a\n\t#c", "#a\n# b\nFROM a\n#c\n"),
        ("lists", "FROM a\nENV A=1 \\\n      B=\"x  y\"\\\n\n  # c\n C=3\n", "FROM a\nENV A=1 \\\n    B=\"x  y\" \\\n    # c\n    C=3\n"),
        ("lists that agree", "FROM a\nCOPY a   \\\n\tb\\\t\n\t/c\n", "FROM a\nCOPY a \\\n\tb \\\n\t/c\n"),
        ("commands", "FROM a\nRUN a  \\  \n\n   b && \\\n # c  \n\tc  \n", "FROM a\nRUN a  \\\n   b && \\\n # c\n\tc\n"),
        ("a command on its own line", "FROM a\nRUN   --network=none\\\n  x\n", "FROM a\nRUN --network=none \\\n  x\n"),
        ("JSON", "FROM a\nCMD  [ \"a\",\"b c\" ,\"\\u0041\" ]\nCMD []\n", "FROM a\nCMD [\"a\", \"b c\", \"\\u0041\"]\nCMD []\n"),
        ("JSON over lines", "FROM a\nCMD [ \"a\", \\ \n  \"b\" ]\n", "FROM a\nCMD [ \"a\", \\\n  \"b\" ]\n"),
        ("what is no JSON", "FROM a\nCMD  [ 'a','b' ]\n", "FROM a\nCMD [ 'a','b' ]\n"),
        ("words over lines", "FROM a\nENV A=\"x \\\n   y\"   B=1\n", "FROM a\nENV A=\"x \\\n   y\" B=1\n"),
        ("the old form", "FROM a\nenv  A   b  c\n", "FROM a\nENV A   b  c\n"),
        ("triggers", "FROM a\nonbuild   run   x  y\n", "FROM a\nONBUILD run   x  y\n"),
        (
            "heredocs",
            "FROM a\nrun  <<E   cat\n  x  \n\n\nE\ncopy  <<F   /f\n\tF \nF\n",
            "FROM a\nRUN <<E   cat\n  x  \n\n\nE\nCOPY <<F /f\n\tF \nF\n",
        ),
        ("a heredoc at the end", "FROM a\nRUN <<E\nx\nE", "FROM a\nRUN <<E\nx\nE\n"),
        ("CRLF", "from a\r\nrun x \\\r\n\r\n y\nRUN <<E\na\nb\r\nE\n", "FROM a\r\nRUN x \\\r\n y\r\nRUN <<E\r\na\nb\r\nE\n"),
        ("LF", "from a\nrun x \\\r\n y\r\n", "FROM a\nRUN x \\\n y\n"),
        ("escape", "# escape=`  \nFROM a\nENV A=1`\n B=c:\\\n", "# escape=`\nFROM a\nENV A=1 `\n B=c:\\\n"),
        ("odd blanks", "FROM a\nRUN b\u{c}\\\n#c\u{c}\t\r\t\n#d\n e\n", "FROM a\nRUN b\u{c}\\\n#c\n#d\n e\n"),
        ("a mark at the end", "FROM a\nrun b \\", "FROM a\nrun b \\\n"),
        ("the end of flags", "FROM a\nRUN  --   x\n", "FROM a\nRUN  --   x\n"),
        ("a mark alone", "\\\nFROM a\n", "\\\nFROM a\n"),
        ("a byte order mark", "\u{feff}from a\n", "\u{feff}FROM a\n"),
    ];
    for (name, text, want) in cases {
        assert_eq!(formatted(text), want, "{name}");
    }
}

#[test]
fn what_would_change_the_meaning_stays() {
    // Without the empty line the comment would be a directive; without its indentation too.
    for text in ["\n# escape=`\nFROM a\\b\n", "# a\n# escape=`\nFROM a\n", "  # syntax=x\nFROM a\n"] {
        assert_eq!(formatted(text), text);
    }
    // The rest of such a file is still formatted.
    assert_eq!(formatted("\n# check=skip=all\nfrom   a\n\n\nRUN b\n"), "\n# check=skip=all\nFROM a\n\nRUN b\n");
}

#[test]
fn a_file_that_is_none_is_an_error() {
    let source = Source::new("Dockerfile", "FROM a\nCOPPY a b\n");
    assert_eq!(format(&source).unwrap_err().to_string(), "Dockerfile:2:1: unknown instruction `COPPY`");
}
