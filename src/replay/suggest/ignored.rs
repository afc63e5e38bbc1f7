//! Lines for an ignore file: files that made steps miss, and that builds seldom need.
//!
//! A proposal: whether nothing reads them, only the build can tell. A line is kept when some miss needs it: one whose changed
//! files are all among those hidden.

use crate::dockerfile::ignore::IgnoreRules;

use super::super::Because;

/// What builds seldom need.
const SELDOM: [&str; 36] = [
    "**/*.md",
    "docs",
    "doc",
    "documentation",
    "examples",
    "**/test",
    "**/tests",
    "**/__tests__",
    "**/*.test.*",
    "**/*.spec.*",
    "**/*_test.go",
    "e2e",
    "cypress",
    ".github",
    ".gitlab",
    ".gitlab-ci.yml",
    ".circleci",
    ".travis.yml",
    ".semaphore",
    ".ci",
    ".vscode",
    ".idea",
    ".devcontainer",
    ".husky",
    ".gitignore",
    ".gitattributes",
    ".mailmap",
    ".editorconfig",
    ".pre-commit-config.yaml",
    "**/Dockerfile*",
    ".dockerignore",
    "**/docker-compose*",
    "**/compose*.y*ml",
    "CODEOWNERS",
    "LICENSE",
    "renovate.json",
];

/// Returns the lines that would have spared misses, none without effect. `named`: paths that the Dockerfile copies by name.
pub(super) fn lines(because: &Because, named: &[String]) -> Vec<&'static str> {
    let misses: Vec<&Vec<Vec<u8>>> =
        because.iter().flatten().map(|(_, files)| files).filter(|f| !f.cut && !f.paths.is_empty()).map(|f| &f.paths).collect();
    let spared = |lines: &[&str]| match IgnoreRules::from_patterns(lines) {
        Ok(rules) => misses.iter().filter(|paths| paths.iter().all(|path| rules.is_ignored(path))).count(),
        Err(_) => 0,
    };
    let hides = |line: &str, path: &[u8]| IgnoreRules::from_patterns([line]).is_ok_and(|rules| rules.is_ignored(path));
    let of_use = |line: &&str| {
        !named.iter().any(|path| hides(line, path.as_bytes())) && misses.iter().flat_map(|paths| paths.iter()).any(|path| hides(line, path))
    };
    let mut lines: Vec<&'static str> = SELDOM.into_iter().filter(of_use).collect();
    let all = spared(&lines);
    if all == 0 {
        return Vec::new();
    }
    for line in lines.clone() {
        let without: Vec<&'static str> = lines.iter().copied().filter(|l| *l != line).collect();
        if spared(&without) == spared(&lines) {
            lines = without;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::super::Files;
    use super::*;

    #[test]
    fn only_lines_that_spare_a_miss_are_proposed() {
        let miss = |paths: &[&str]| (0, Files { paths: paths.iter().map(|p| p.as_bytes().to_vec()).collect(), cut: false });
        let because = vec![
            vec![miss(&["README.md"])],
            vec![miss(&["docs/a.txt", "src/README.md"]), miss(&["src/main.c"])],
            vec![miss(&[".github/x.yml", "src/main.c"])],
            vec![],
        ];
        assert_eq!(lines(&because, &[]), ["**/*.md", "docs"]);
        assert_eq!(lines(&because, &["README.md".into()]), [""; 0]);
        assert_eq!(lines(&because, &["docs".into()]), ["**/*.md"]);
        let cut = vec![vec![(0, Files { paths: vec![b"README.md".to_vec()], cut: true })]];
        assert_eq!(lines(&cut, &[]), [""; 0]);
    }
}
