//! Submodules: which there are, where they come from, and their trees put where they belong.
//!
//! A tree names its submodules twice: by an entry with a commit, and in `.gitmodules` by a path and an address. Each is
//! fetched as any repository is, by the same rules: the protocols of the allow-list, no option in disguise. Credentials go
//! along to the host of the outermost repository only.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::checkout::read_tree;
use super::command::{Place, Runner};
use super::{Commit, Git, GitAccess};
use crate::address::{GitAddress, Parts, redact};
use crate::path::{Root, printable};
use crate::remote::{RemoteError, Result};

/// How deep submodules may be nested: a repository can name itself.
const DEPTH_MAX: usize = 10;
/// How many there may be in all.
const COUNT_MAX: usize = 1000;

/// A submodule that a tree names.
struct Submodule {
    /// From the tree's root.
    path: Vec<u8>,
    commit: String,
    address: GitAddress,
}

impl Git<'_> {
    /// Checks out all submodules of a commit whose own files are in `tree` already.
    pub(super) fn check_submodules_out(
        &self,
        address: &GitAddress,
        runner: &Runner<'_>,
        commit: &Commit,
        tree: &Path,
        staging: &Path,
    ) -> Result<()> {
        let mut pending: Vec<(usize, Vec<u8>, Submodule)> = Vec::new();
        let found = self.submodules(address, runner, commit, staging)?;
        pending.extend(found.into_iter().map(|s| (1, Vec::new(), s)));
        let mut count = 0;
        while let Some((depth, above, submodule)) = pending.pop() {
            let path = if above.is_empty() { submodule.path.clone() } else { [&above, &b"/"[..], &submodule.path].concat() };
            let refused = |why: String| RemoteError::Submodule { remote: address.shown(), path: printable(&path), why };
            count += 1;
            if depth > DEPTH_MAX || count > COUNT_MAX {
                return Err(refused(format!("is one too many: at most {COUNT_MAX} are fetched, {DEPTH_MAX} deep")));
            }
            let access = self.access_for(address, &submodule.address);
            let git = Git { access: &access, ..*self };
            let runner = Runner::new(&git, &submodule.address)?;
            let commit = Commit { object: submodule.commit.clone(), commit: submodule.commit.clone(), reference: None };
            {
                let fetched = git.fetched(&runner, &submodule.address, &commit)?;
                let root = Root::open(tree).map_err(|e| refused(format!("has no place: {e}")))?;
                let place = root.open_dir_nolinks(&path).map_err(|_| refused("has no directory to be put into".into()))?;
                drop(place);
                let below: &Path =
                    Path::new(std::ffi::OsStr::new(std::str::from_utf8(&path).map_err(|_| refused("has no UTF-8 path".into()))?));
                read_tree(&runner, fetched.repository.path(), &commit.object, &tree.join(below), staging)?;
            }
            let deeper = git.submodules(&submodule.address, &runner, &commit, staging)?;
            pending.extend(deeper.into_iter().map(|s| (depth + 1, path.clone(), s)));
        }
        Ok(())
    }

    /// Reads which submodules a commit, which is here, has.
    fn submodules(&self, address: &GitAddress, runner: &Runner<'_>, commit: &Commit, staging: &Path) -> Result<Vec<Submodule>> {
        let fetched = self.fetched(runner, address, commit)?;
        let repository = fetched.repository.path();
        let links = links(runner, repository, &commit.object, staging)?;
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let blob = format!("{}:.gitmodules", commit.object);
        let args = ["config", "--blob", &blob, "-z", "--get-regexp", r"^submodule\..*\.(path|url|update)$"];
        let listed = runner.run("reading the submodules of", &args, &Place::repository(repository));
        // No such file, and nothing in it, are told apart by nobody.
        let settings = match listed {
            Err(RemoteError::Git { .. }) => Vec::new(),
            listed => settings(&listed?),
        };
        let mut found = Vec::new();
        for (path, commit) in links {
            let refused = |why: String| RemoteError::Submodule { remote: address.shown(), path: printable(&path), why };
            let name = settings.iter().find(|(_, key, value)| *key == "path" && value.trim_end_matches('/').as_bytes() == path);
            let name = name.map(|(name, ..)| name);
            let of = |wanted: &str| settings.iter().rfind(|(n, key, _)| Some(n) == name && *key == wanted).map(|(_, _, v)| v.as_str());
            if of("update") == Some("none") {
                continue;
            }
            let url = of("url").ok_or_else(|| refused("has no url in .gitmodules".into()))?;
            let url = resolve(&address.remote, url);
            let sub = GitAddress::repository(&url).map_err(|why| refused(format!("has the address `{}`: {why}", redact(&url))))?;
            found.push(Submodule { path, commit, address: sub });
        }
        Ok(found)
    }

    /// Returns how a submodule's host is reached: with the credentials of the outermost repository if it is the same.
    fn access_for(&self, outermost: &GitAddress, submodule: &GitAddress) -> GitAccess {
        let origin = |a: &GitAddress| Parts::of(&a.remote).map(|p| (p.scheme.to_string(), p.authority.to_string()));
        let same = origin(outermost).is_some() && origin(outermost) == origin(submodule);
        let own = Parts::of(&outermost.remote).and_then(|p| p.credentials()).is_some();
        let mut access = self.access.clone();
        if !same {
            access.authorization = None;
        } else if access.authorization.is_none() && own {
            access.authorization = super::command::header_of(outermost);
        }
        access
    }
}

/// Returns the tree's entries that are commits: path and commit.
fn links(runner: &Runner<'_>, repository: &Path, object: &str, staging: &Path) -> Result<Vec<(Vec<u8>, String)>> {
    let path = staging.join("listing");
    let failed = |source| RemoteError::Checkout { doing: "listing", remote: runner.remote.clone(), source };
    let file = File::create(&path).map_err(failed)?;
    runner.run_into("listing", &["ls-tree", "-r", "-z", "--full-tree", object], &Place::repository(repository), file)?;
    let mut found = Vec::new();
    for line in BufReader::new(File::open(&path).map_err(failed)?).split(0) {
        let line = line.map_err(failed)?;
        // `MODE TYPE OBJECT<TAB>PATH`
        let Some(rest) = line.strip_prefix(b"160000 commit ") else { continue };
        let Some(tab) = rest.iter().position(|b| *b == b'\t') else { continue };
        found.push((rest[tab + 1..].to_vec(), String::from_utf8_lossy(&rest[..tab]).into_owned()));
    }
    let _ = std::fs::remove_file(&path);
    Ok(found)
}

/// Reads `submodule.NAME.KEY<LF>VALUE<NUL>…`.
fn settings(listed: &[u8]) -> Vec<(String, &'static str, String)> {
    let one = |record: &[u8]| {
        let text = String::from_utf8_lossy(record).into_owned();
        let (key, value) = text.split_once('\n')?;
        let (name, key) = key.strip_prefix("submodule.")?.rsplit_once('.')?;
        let key = ["path", "url", "update"].into_iter().find(|k| *k == key)?;
        Some((name.to_string(), key, value.to_string()))
    };
    listed.split(|b| *b == 0).filter_map(one).collect()
}

/// Resolves `./x` and `../x` against the address of the repository that says so, as git does.
fn resolve(base: &str, url: &str) -> String {
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.into();
    }
    let mut base = base.trim_end_matches('/').to_string();
    let mut rest = url;
    let mut separator = '/';
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let start = base.find("://").map_or(0, |at| at + 3);
            match (base[start..].rfind('/'), base[start..].rfind(':')) {
                (Some(slash), _) => base.truncate(start + slash),
                (None, Some(colon)) if start == 0 => {
                    base.truncate(colon);
                    separator = ':';
                }
                _ => break,
            }
        } else {
            break;
        }
    }
    format!("{base}{separator}{}", rest.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_start_from_the_repository() {
        for (base, url, want) in [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git/", "../../c/d", "https://h/c/d"),
            ("https://h/a/b.git", "./c", "https://h/a/b.git/c"),
            ("https://h/a", "../../../../c", "https://h/../../c"),
            ("git@h:a/b", "../c", "git@h:a/c"),
            ("git@h:b", "../c", "git@h:c"),
            ("https://h/a/b.git", "https://x/y", "https://x/y"),
            ("https://h/a/b.git", "file:///etc", "file:///etc"),
        ] {
            assert_eq!(resolve(base, url), want, "{base} {url}");
        }
    }

    #[test]
    fn settings_are_read_by_name() {
        let listed = b"submodule.a.b.path\nx/y\0submodule.a.b.url\n../z\0submodule.c.branch\nmain\0";
        let want = [("a.b", "path", "x/y"), ("a.b", "url", "../z")].map(|(n, k, v)| (n.to_string(), k, v.to_string()));
        assert_eq!(settings(listed), want);
    }
}
