//! What a RUN's shell command does, as far as it can be read off: one that installs what manifests list, or one that looks
//! at no copied file.
//!
//! Pure, and guesswork by design: a suggestion is a proposal. When in doubt a command needs all files.

/// A program that installs what manifests list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    /// What people call it.
    pub name: &'static str,
    /// The files that it reads, where they are there.
    pub manifests: &'static [&'static str],
    /// The beginnings of its commands.
    commands: &'static [&'static [&'static str]],
    /// Words one of which must be there, if any are listed.
    must: &'static [&'static str],
}

/// The tools that are known.
const TOOLS: [Tool; 14] = [
    tool(
        "npm",
        &["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"],
        &[&["npm", "ci"], &["npm", "install"], &["npm", "i"]],
    ),
    tool("yarn", &["package.json", "yarn.lock", ".yarnrc", ".yarnrc.yml", ".npmrc"], &[&["yarn", "install"], &["yarn"]]),
    tool(
        "pnpm",
        &["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc", ".pnpmfile.cjs"],
        &[&["pnpm", "install"], &["pnpm", "i"], &["pnpm", "fetch"]],
    ),
    tool(
        "pip",
        &[],
        &[&["pip", "install"], &["pip3", "install"], &["python", "-m", "pip", "install"], &["python3", "-m", "pip", "install"]],
    ),
    tool("pipenv", &["Pipfile", "Pipfile.lock"], &[&["pipenv", "install"], &["pipenv", "sync"]]),
    Tool { must: &["--no-root"], ..tool("poetry", &["pyproject.toml", "poetry.lock", "poetry.toml"], &[&["poetry", "install"]]) },
    Tool { must: &["--no-install-project"], ..tool("uv", &["pyproject.toml", "uv.lock"], &[&["uv", "sync"]]) },
    tool("go", &["go.mod", "go.sum"], &[&["go", "mod", "download"]]),
    tool("cargo", &["Cargo.toml", "Cargo.lock"], &[&["cargo", "fetch"]]),
    tool("bundler", &["Gemfile", "Gemfile.lock", ".ruby-version"], &[&["bundle", "install"]]),
    Tool {
        must: &["--no-scripts", "--no-autoloader"],
        ..tool("composer", &["composer.json", "composer.lock"], &[&["composer", "install"]])
    },
    tool("maven", &["pom.xml"], &[&["mvn", "dependency:go-offline"], &["mvn", "dependency:resolve"]]),
    tool("mix", &["mix.exs", "mix.lock"], &[&["mix", "deps.get"]]),
    tool("deno", &["deno.json", "deno.lock"], &[&["deno", "install"]]),
];

const fn tool(name: &'static str, manifests: &'static [&'static str], commands: &'static [&'static [&'static str]]) -> Tool {
    Tool { name, manifests, commands, must: &[] }
}

/// An install and the files that it names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Install {
    pub tool: Tool,
    /// `requirements.txt` of `-r requirements.txt`.
    pub named: Vec<String>,
}

/// Parts a command at its top-level `&&`; none: it is more than a chain of plain commands.
pub(super) fn chain(command: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut chars = command.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                parts.last_mut()?.push(c);
                parts.last_mut()?.extend(chars.next());
                continue;
            }
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '&') if chars.next_if_eq(&'&').is_some() => {
                parts.push(String::new());
                continue;
            }
            (None, '|' | '&' | ';' | '(' | ')' | '`' | '<' | '{' | '}' | '\n') => return None,
            _ => {}
        }
        parts.last_mut()?.push(c);
    }
    let parts: Vec<String> = parts.into_iter().map(|p| p.trim().to_owned()).collect();
    (quote.is_none() && parts.iter().all(|p| !p.is_empty())).then_some(parts)
}

/// Reads an install off one command; none: it is none, or needs more than manifests.
pub(super) fn install(command: &str) -> Option<Install> {
    let words = words(command);
    for tool in TOOLS {
        let Some(prefix) = tool.commands.iter().find(|c| words.starts_with(c)) else { continue };
        let rest = &words[prefix.len()..];
        if !tool.must.is_empty() && !rest.iter().any(|w| tool.must.contains(w)) {
            return None;
        }
        let named = named_files(tool.name, rest)?;
        return Some(Install { tool, named });
    }
    None
}

/// The manifests among an install's arguments; none: an argument stands for other files, or for a package by its name.
fn named_files(tool: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let mut named = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let value = match *argument {
            "-r" | "--requirement" | "-c" | "--constraint" if tool == "pip" => arguments.next().copied(),
            other if tool == "pip" => other.strip_prefix("--requirement=").or_else(|| other.strip_prefix("-r").filter(|v| !v.is_empty())),
            _ => None,
        };
        match value {
            Some(file) => named.push(file.to_owned()),
            // Flags that take a value are few; a stray value looks like a package, and then nothing is suggested.
            None if argument.starts_with('-') && !matches!(*argument, "-e" | "--editable" | "-g" | "--global") => {}
            None => return None,
        }
    }
    (tool != "pip" || !named.is_empty()).then_some(named)
}

/// Whether some tool reads a file of this name.
pub(super) fn is_manifest(name: &str) -> bool {
    TOOLS.iter().any(|tool| tool.manifests.contains(&name))
}

/// Whether a command looks at no file that a COPY brought: packages of the system, users, directories.
pub(super) fn needs_no_files(command: &str) -> bool {
    const PLAIN: [&str; 14] = [
        "apt-get", "apt", "apk", "yum", "dnf", "microdnf", "zypper", "pacman", "useradd", "adduser", "groupadd", "addgroup", "corepack",
        "true",
    ];
    let words = words(command);
    let local = |w: &&str| w.starts_with("./") || w.starts_with("../") || w.ends_with(".deb") || w.ends_with(".rpm") || w.ends_with(".apk");
    match words.as_slice() {
        [] => false,
        _ if words.iter().any(local) => false,
        ["set", ..] => true,
        ["rm", rest @ ..] => {
            rest.iter().all(|w| w.starts_with('-') || w.starts_with("/var/") || w.starts_with("/tmp") || w.starts_with("/root/.cache"))
        }
        ["mkdir", rest @ ..] => rest.iter().all(|w| w.starts_with(['-', '/'])),
        ["npm", "install" | "i", rest @ ..] | ["pnpm", "add" | "install", rest @ ..] => {
            rest.iter().any(|w| matches!(*w, "-g" | "--global"))
        }
        ["yarn", "global", "add", ..] => true,
        ["pip" | "pip3", "install", rest @ ..] => rest.iter().all(|w| w.starts_with("--") || is_package(w)) && !rest.is_empty(),
        [first, ..] => PLAIN.contains(first),
    }
}

/// Whether a word is a package with or without its version, and no file.
fn is_package(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'']);
    !word.is_empty() && !word.contains('/') && word != "." && word.starts_with(|c: char| c.is_ascii_alphabetic()) && !word.ends_with(".txt")
}

fn words(command: &str) -> Vec<&str> {
    let words = command.split_whitespace();
    // Variables set for one command.
    words.skip_while(|w| w.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_parted_where_they_are_plain() {
        let of = |text: &str| chain(text).map(|c| c.join("|"));
        for (text, want) in [
            ("a", Some("a")),
            ("a b && c '&& d' && e \"; f\"", Some("a b|c '&& d'|e \"; f\"")),
            ("a \\&& b", None),
            ("a | b", None),
            ("a || b", None),
            ("a; b", None),
            ("$(a) && b", None),
            ("a &&", None),
            ("a 'b", None),
        ] {
            assert_eq!(of(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn installs_are_told_from_what_needs_more() {
        for (command, want) in [
            ("npm ci", Some(("npm", ""))),
            ("npm ci --omit=dev", Some(("npm", ""))),
            ("CI=1 npm install", Some(("npm", ""))),
            ("npm install left-pad", None),
            ("npm install -g pnpm", None),
            ("npm run build", None),
            ("yarn", Some(("yarn", ""))),
            ("yarn --frozen-lockfile", Some(("yarn", ""))),
            ("yarn build", None),
            ("pnpm install --frozen-lockfile", Some(("pnpm", ""))),
            ("pip install --no-cache-dir -r requirements.txt", Some(("pip", "requirements.txt"))),
            ("pip3 install -r a.txt -c b.txt", Some(("pip", "a.txt b.txt"))),
            ("python -m pip install -ra.txt", Some(("pip", "a.txt"))),
            ("pip install .", None),
            ("pip install -e . -r a.txt", None),
            ("pip install flask", None),
            ("poetry install", None),
            ("poetry install --no-root", Some(("poetry", ""))),
            ("go mod download", Some(("go", ""))),
            ("go build ./...", None),
            ("bundle install", Some(("bundler", ""))),
        ] {
            let got = install(command).map(|i| (i.tool.name, i.named.join(" ")));
            assert_eq!(got.as_ref().map(|(n, f)| (*n, f.as_str())), want, "{command}");
        }
    }

    #[test]
    fn only_what_surely_needs_no_file_may_be_moved_before_copies() {
        for (command, want) in [
            ("apt-get update", true),
            ("apt-get install -y --no-install-recommends curl", true),
            ("apt-get install -y ./local.deb", false),
            ("rm -rf /var/lib/apt/lists/*", true),
            ("rm -rf node_modules", false),
            ("npm install -g pnpm", true),
            ("npm ci", false),
            ("pip install flask==2 gunicorn", true),
            ("pip install -r requirements.txt", false),
            ("pip install .", false),
            ("mkdir -p /data", true),
            ("mkdir data", false),
            ("make", false),
            ("", false),
        ] {
            assert_eq!(needs_no_files(command), want, "{command}");
        }
    }
}
