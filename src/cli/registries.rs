//! Finds and reads the files that say which registries are asked: `registries.conf` and its drop-ins, `certs.d`.
//!
//! What they mean is told in [`crate::registry::conf`]. What a newcomer would get wrong: the user's main file replaces the
//! system's, but drop-ins of both count, the user's last.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::transfer;
use crate::engine::cancel::CancelToken;
use crate::engine::event::{Event, Observer};
use crate::registry::{Notices, RegistryConfig, Rules};

/// The largest file that is read.
const FILE_MAX_BYTES: u64 = 4 << 20;
/// Where the system's files are.
const SYSTEM: &str = "/etc";

/// Lets what is done with a configuration end when `cancel` says so, and tell `observer`.
pub fn watched(config: RegistryConfig, cancel: &CancelToken, observer: Arc<dyn Observer>) -> RegistryConfig {
    let notices = Notices(Arc::new(move |text: &str| observer.event(Event::Notice(text.to_string()))));
    RegistryConfig { end: Some(cancel.cell()), notices: Some(notices), ..config }
}

/// Returns how to reach registries, as the variables and files say.
pub fn config(env: &Environment) -> Result<RegistryConfig, Failure> {
    let rules = rules(env, Path::new(SYSTEM))?;
    Ok(RegistryConfig { rules, certs_dirs: certs_dirs(env, Path::new(SYSTEM)), ..transfer::registry_config(env) })
}

fn certs_dirs(env: &Environment, system: &Path) -> Vec<PathBuf> {
    let user = env.config_home();
    let of = |program: &str| [user.clone(), Some(system.to_path_buf())].map(|d| d.map(|d| d.join(program).join("certs.d")));
    [of("containers"), of("docker")].into_iter().flatten().flatten().collect()
}

/// Reads the files of this environment, in order.
fn rules(env: &Environment, system: &Path) -> Result<Rules, Failure> {
    let system = system.join("containers");
    let user = env.config_home().map(|d| d.join("containers"));
    let mut rules = Rules::default();
    let mut add = |path: &Path, must: bool| -> Result<bool, Failure> {
        let Some(text) = read(path).map_err(|e| Failure::message(format!("reading {}: {e}", path.display())))? else {
            return match must {
                true => Err(Failure::message(format!("reading {}: there is no such file", path.display()))
                    .hint("CONTAINERS_REGISTRIES_CONF names it")),
                false => Ok(false),
            };
        };
        rules.add_file(&path.display().to_string(), &text).map_err(|e| Failure::of(&e))?;
        Ok(true)
    };
    match env.variable("CONTAINERS_REGISTRIES_CONF").map(|p| env.directory.join(p)) {
        Some(path) => drop(add(&path, true)?),
        None => {
            let found = match &user {
                Some(dir) => add(&dir.join("registries.conf"), false)?,
                None => false,
            };
            if !found {
                add(&system.join("registries.conf"), false)?;
            }
        }
    }
    for dir in [Some(system), user].into_iter().flatten() {
        for path in drop_ins(&dir.join("registries.conf.d"))? {
            add(&path, false)?;
        }
    }
    Ok(rules)
}

/// Lists `*.conf` of a directory, sorted by name.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: std::io::Error| Failure::message(format!("listing {}: {e}", dir.display()));
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "conf") && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> std::io::Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = String::new();
    file.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::with;

    fn prefixes(rules: &Rules) -> Vec<(String, String)> {
        let name = |file: &str| file.rsplit('/').next().unwrap_or_default().to_string();
        rules.0.iter().map(|r| (r.prefix.clone(), name(&r.file))).collect()
    }

    #[test]
    fn the_users_main_file_replaces_the_systems_and_drop_ins_of_both_count() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, prefix: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("[[registry]]\nlocation = '{prefix}'\n")).unwrap();
        };
        put("etc/containers/registries.conf", "system");
        put("etc/containers/registries.conf.d/20-b.conf", "b");
        put("etc/containers/registries.conf.d/10-a.conf", "a");
        put("etc/containers/registries.conf.d/30-c.conf.bak", "backup");
        put("named.conf", "named");
        let (home, system) = (dir.path().join("home"), dir.path().join("etc"));
        let home_text = home.to_str().unwrap();
        let named = dir.path().join("named.conf");
        let read = |vars: &[(&str, &str)]| rules(&with(vars), &system);
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        let system_files = of(&[("system", "registries.conf"), ("a", "10-a.conf"), ("b", "20-b.conf")]);
        assert_eq!(prefixes(&read(&[]).unwrap()), system_files);
        assert_eq!(prefixes(&read(&[("HOME", home_text)]).unwrap()), system_files);
        put("home/.config/containers/registries.conf", "user");
        put("home/.config/containers/registries.conf.d/00.conf", "a");
        let mine = of(&[("user", "registries.conf"), ("b", "20-b.conf"), ("a", "00.conf")]);
        assert_eq!(prefixes(&read(&[("HOME", home_text)]).unwrap()), mine);
        let by_name = of(&[("named", "named.conf"), ("a", "10-a.conf"), ("b", "20-b.conf")]);
        assert_eq!(prefixes(&read(&[("CONTAINERS_REGISTRIES_CONF", named.to_str().unwrap())]).unwrap()), by_name);
        let missing = read(&[("CONTAINERS_REGISTRIES_CONF", "missing.conf")]).unwrap_err();
        assert_eq!(missing.diagnostics[0].message, "reading /work/missing.conf: there is no such file");
        std::fs::write(system.join("containers/registries.conf"), "\n\n[[registry]]\nlocation = 1\n").unwrap();
        let message = read(&[]).unwrap_err().diagnostics[0].message.clone();
        let want = "etc/containers/registries.conf:4:12: invalid type: integer `1`, expected a string";
        assert!(message.ends_with(want), "{message}");
    }

    #[test]
    fn certificates_are_looked_for_where_containers_and_docker_have_them() {
        let env = with(&[("HOME", "/h")]);
        let want = ["/h/.config/containers/certs.d", "/etc/containers/certs.d", "/h/.config/docker/certs.d", "/etc/docker/certs.d"];
        assert_eq!(certs_dirs(&env, Path::new("/etc")), want.map(PathBuf::from));
    }
}
