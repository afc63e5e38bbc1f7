//! What `load`, `import` and `pull` share: the way to registries as the environment describes it, and progress.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{interrupt, registries, stored};
use crate::engine::cancel::CancelToken;
use crate::engine::event::{Event, Observer};
use crate::engine::sources::{Policy, Progress as Tell, Sources};
use crate::registry::{Client, RegistryConfig};
use crate::store::Store;
use crate::ui::progress::{Mode, Progress};

/// Tells an observer of transfers, as tasks.
pub struct Tasks {
    observer: Arc<dyn Observer>,
    started: Mutex<Vec<Instant>>,
    cancel: CancelToken,
}

impl Tasks {
    /// Tells `observer`, and ends when `cancel` says so.
    pub fn new(observer: Arc<dyn Observer>, cancel: CancelToken) -> Self {
        Self { observer, started: Mutex::default(), cancel }
    }
}

impl Tell for Tasks {
    fn begin(&self, title: String) -> usize {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let task = started.len();
        started.push(Instant::now());
        self.observer.event(Event::TaskStarted(task, title));
        task
    }
    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
    fn advance(&self, task: usize, done: u64, total: Option<u64>) {
        self.observer.event(Event::TaskProgress(task, done, total));
    }
    fn end(&self, task: usize) {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let took = started.get(task).map(Instant::elapsed).unwrap_or_default();
        self.observer.event(Event::TaskDone(task, took));
    }
}

/// Runs a command's `work` with sources that ask registries when `pull` says so; a signal ends it in order, with 128 + n.
pub fn interruptible<T>(
    session: &Session,
    quiet: bool,
    pull: bool,
    work: impl FnOnce(&Sources<'_>, &Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cancel = interrupt::install()?;
    let result = with_sources(session, quiet, pull, &cancel, work);
    match (result, interrupt::status(&cancel)) {
        (Err(_), Some(status)) => Err(Failure::message("interrupted").status(status)),
        (result, _) => result,
    }
}

/// Runs `work` with sources that ask registries when `pull` says so, showing progress on standard error.
pub fn with_sources<T>(
    session: &Session,
    quiet: bool,
    pull: bool,
    cancel: &CancelToken,
    work: impl FnOnce(&Sources<'_>, &Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let store = stored::open(session)?;
    store.end_when(cancel.cell());
    let config = registries::config(&session.env);
    let mode = if quiet { Mode::Quiet } else { Mode::Auto.resolve(session.env.can_redraw()) };
    let progress = Progress::start(mode, session.stderr);
    progress.ends(cancel);
    let client = Client::new(registries::watched(config, cancel, progress.clone()));
    let tasks = Tasks::new(progress.clone(), cancel.clone());
    let policy = Policy { pull, now_secs: session.env.now_secs, ..Policy::default() };
    let host_path = search_path(&session.env);
    let sources = Sources { store: &store, client: &client, policy, host_path: &host_path, progress: &tasks, pulls: None };
    let result = work(&sources, &store);
    progress.finish();
    result
}

/// Returns how to reach registries as the variables alone say: credentials, proxies and certificates.
pub fn registry_config(env: &Environment) -> RegistryConfig {
    // Lower case first, as curl does.
    let either = |lower: &str| {
        let text = |name: &str| env.text(name).filter(|v| !v.is_empty()).map(str::to_owned);
        text(lower).or_else(|| text(&lower.to_uppercase()))
    };
    let all = either("all_proxy");
    let path = |name: &str| env.variable(name).map(|p| env.directory.join(p));
    RegistryConfig {
        auth_files: env.credential_files(),
        helper_dirs: search_path(env),
        https_proxy: either("https_proxy").or_else(|| all.clone()),
        http_proxy: either("http_proxy").or(all),
        no_proxy: either("no_proxy")
            .map(|v| v.split(',').map(|h| h.trim().to_owned()).filter(|h| !h.is_empty()).collect())
            .unwrap_or_default(),
        cert_file: path("SSL_CERT_FILE"),
        cert_dir: path("SSL_CERT_DIR"),
        ..RegistryConfig::default()
    }
}

/// Returns PATH's absolute directories; the working directory is never searched (CVE-2025-15558).
pub fn search_path(env: &Environment) -> Vec<PathBuf> {
    env.variable("PATH").map(|p| std::env::split_paths(p).filter(|d| d.is_absolute()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::with;

    #[test]
    fn registries_are_reached_as_the_variables_say() {
        let vars = [
            ("https_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:1"),
            ("ALL_PROXY", "http://c:1"),
            ("NO_PROXY", "x, .y,"),
            ("SSL_CERT_FILE", "ca.pem"),
            ("PATH", "/bin:relative::/usr/bin"),
        ];
        let config = registry_config(&with(&vars));
        assert_eq!((config.https_proxy.as_deref(), config.http_proxy.as_deref()), (Some("http://a:1"), Some("http://c:1")));
        assert_eq!(config.no_proxy, ["x", ".y"]);
        assert_eq!(config.cert_file, Some("/work/ca.pem".into()));
        assert_eq!(config.helper_dirs, [PathBuf::from("/bin"), "/usr/bin".into()]);
    }
}
