//! The caller's ssh agent as steps see it: a socket of the step's own, behind which agent requests are passed on.
//!
//! ```text
//! step ─ mounted socket ─ Door (a thread a step) ─ the caller's agent, or an `ssh-agent` that holds the key files
//! ```
//!
//! A newcomer would mount the agent's own socket. Then `uid=`, `gid=` and `mode=` could not be given, OpenSSH's agent
//! would refuse every other user of the step, and a step could add, remove or lock the caller's keys. Here only lists and
//! signatures pass, as in BuildKit. Keys from files never touch the store: they go to OpenSSH's agent through a pipe, and
//! its process ends with ours.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::path::{Attributes, Ownership, Root};
use crate::store::Staging;

/// A key file that is larger is none (BuildKit's limit).
const MAX_KEY_BYTES: u64 = 100 << 10;
/// OpenSSH's limit of one message.
const MAX_MESSAGE_BYTES: u32 = 256 << 10;
/// How long an agent may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(5);
/// The socket's name in its directory.
const SOCKET: &str = "agent";

/// The agent protocol's numbers that matter here.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// Why a step can't have the agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    #[error("`{0}` is not there")]
    Absent(PathBuf, #[source] std::io::Error),
    #[error("reading the key `{0}`")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the key `{path}` was refused: {said}")]
    Refused { path: PathBuf, said: String },
    #[error("starting `{0}`, which holds keys from files")]
    Start(&'static str, #[source] std::io::Error),
    #[error("`ssh-agent` did not start to listen")]
    Silent,
    #[error("making the step's socket")]
    Socket(#[source] std::io::Error),
    #[error("preparing the step's socket")]
    Prepare(#[from] crate::path::PathError),
}

impl SshError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start(..) => Some("install OpenSSH's client (openssh-client), or give an agent's socket"),
            Self::Refused { .. } => Some("keys with a passphrase need an agent: ssh-add KEY, then --ssh default"),
            _ => None,
        }
    }
}

/// The agents that hold keys from files, one for each `--ssh`; each started at the first need.
#[derive(Default)]
pub(super) struct KeyAgents(Mutex<HashMap<String, Arc<KeyAgent>>>);

/// Where a door leads.
#[derive(Clone)]
pub(super) enum Upstream {
    /// The caller's own agent.
    Caller(PathBuf),
    /// One that we started.
    Keys(Arc<KeyAgent>),
}

impl KeyAgents {
    /// Returns the agent of `--ssh id=PATHS`: a socket is the caller's own, files are keys.
    pub fn upstream(&self, id: &str, paths: &[PathBuf], stage: impl FnOnce() -> Result<Staging, SshError>) -> Result<Upstream, SshError> {
        if let [path] = paths {
            let meta = std::fs::metadata(path).map_err(|e| SshError::Absent(path.clone(), e))?;
            if meta.file_type().is_socket() {
                return Ok(Upstream::Caller(path.clone()));
            }
        }
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = started.get(id) {
            return Ok(Upstream::Keys(agent.clone()));
        }
        let agent = Arc::new(KeyAgent::start(paths, stage()?)?);
        started.insert(id.to_owned(), agent.clone());
        Ok(Upstream::Keys(agent))
    }
}

impl Upstream {
    fn connect(&self) -> std::io::Result<UnixStream> {
        match self {
            Self::Caller(path) => UnixStream::connect(path),
            Self::Keys(agent) => agent.connect(),
        }
    }
}

/// An `ssh-agent` that holds keys from files.
///
/// It is started with a command that waits for the end of its input, which is ours: however we end, that command ends,
/// and the agent with it.
pub(super) struct KeyAgent {
    command: Child,
    dir: OwnedFd,
    _stage: Staging,
}

impl KeyAgent {
    fn start(keys: &[PathBuf], stage: Staging) -> Result<Self, SshError> {
        let dir = open_dir(stage.path()).map_err(|e| SshError::Socket(e.into()))?;
        // A relative path: those of sockets are short.
        let command = Command::new("ssh-agent")
            .args(["-a", SOCKET, "cat"])
            .current_dir(stage.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| SshError::Start("ssh-agent", e))?;
        let agent = Self { command, dir, _stage: stage };
        let began = Instant::now();
        while let Err(error) = agent.connect() {
            if began.elapsed() > START_LIMIT || !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                return Err(SshError::Silent);
            }
            std::thread::sleep(START_POLL);
        }
        keys.iter().try_for_each(|key| agent.add(key))?;
        Ok(agent)
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(in_dir(&self.dir))
    }

    /// Adds a key; it goes through a pipe, so that its file's permissions don't matter, as with BuildKit.
    fn add(&self, path: &Path) -> Result<(), SshError> {
        let mut key = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| SshError::Absent(path.into(), e))?;
        file.take(MAX_KEY_BYTES).read_to_end(&mut key).map_err(|e| SshError::Read(path.into(), e))?;
        let mut child = Command::new("ssh-add")
            .args(["-q", "-"])
            .current_dir(self._stage.path())
            .env("SSH_AUTH_SOCK", SOCKET)
            // Nobody is asked for a passphrase.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| SshError::Start("ssh-add", e))?;
        // A program that ends before it has read all says why.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(&key));
        let output = child.wait_with_output().map_err(|e| SshError::Start("ssh-add", e))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace("(stdin)", &path.display().to_string());
        let said = if said.is_empty() { "it is no private key, or has a passphrase".to_owned() } else { said };
        Err(SshError::Refused { path: path.into(), said })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        // The keys go at once, the agent when it sees that its command has ended.
        const REMOVE_ALL_IDENTITIES: u8 = 19;
        if let Ok(mut agent) = self.connect() {
            let _ = agent.write_all(&[0, 0, 0, 1, REMOVE_ALL_IDENTITIES]).and_then(|()| agent.read_exact(&mut [0; 5]));
        }
        drop(self.command.stdin.take());
        let _ = self.command.wait();
    }
}

/// A step's socket and the thread behind it; dropping it closes both.
pub(super) struct Door {
    socket: OwnedFd,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    _stage: Staging,
}

impl Door {
    /// Opens a door to an agent, owned and permitted as the mount says.
    pub fn open(upstream: Upstream, stage: Staging, (uid, gid, mode): (u32, u32, u32), ownership: Ownership) -> Result<Self, SshError> {
        let dir = open_dir(stage.path()).map_err(|e| SshError::Socket(e.into()))?;
        let listener = UnixListener::bind(in_dir(&dir)).map_err(SshError::Socket)?;
        let socket = Root::open(stage.path())?.resolve(SOCKET.as_bytes())?;
        let attributes = Attributes { uid, gid, mode: Some(mode), mtime: None, xattrs: Default::default() };
        crate::path::apply(&socket, SOCKET.as_bytes(), &attributes, ownership)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| SshError::Socket(e.into()))?;
        let serve = move || listen(&listener, &stopped, &upstream);
        let thread = std::thread::Builder::new().name("ssh".into()).spawn(serve).map_err(SshError::Socket)?;
        Ok(Self { socket, stop: Some(stop), thread: Some(thread), _stage: stage })
    }

    /// Returns the socket, to be mounted.
    pub fn socket(&self) -> std::io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only accepts and starts threads; those end with the step's processes.
            let _ = thread.join();
        }
    }
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A path to the socket in a directory, short whatever the directory's own is.
fn in_dir(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())
}

/// Serves who comes, until the other end of `stopped` is closed.
fn listen(listener: &UnixListener, stopped: &OwnedFd, upstream: &Upstream) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let Ok((client, _)) = listener.accept() else { continue };
        let upstream = upstream.clone();
        // Without a thread or an agent the client sees a closed connection.
        let _ = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            let _ = upstream.connect().and_then(|agent| pass_on(client, agent));
        });
    }
}

/// Passes requests on while both sides talk; refused are those that would change the agent.
fn pass_on(mut client: impl Read + Write, mut agent: impl Read + Write) -> std::io::Result<()> {
    loop {
        let request = message(&mut client)?;
        let reply = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                send(&mut agent, &request)?;
                message(&mut agent)?
            }
            _ => vec![FAILURE],
        };
        send(&mut client, &reply)?;
    }
}

fn message(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body)?;
    Ok(body)
}

fn send(to: &mut impl Write, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends requests through a door and returns the replies, and what the agent behind it got.
    fn talk(requests: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (client, door) = UnixStream::pair().unwrap();
        let (behind, agent) = UnixStream::pair().unwrap();
        let serve = std::thread::spawn(move || pass_on(door, behind));
        let answer = std::thread::spawn(move || {
            let (mut agent, mut got) = (agent, Vec::new());
            while let Ok(request) = message(&mut agent) {
                send(&mut agent, &[request[0] + 1]).unwrap();
                got.push(request);
            }
            got
        });
        let mut client = client;
        let replies = requests.iter().map_while(|r| send(&mut client, r).and_then(|()| message(&mut client)).ok()).collect();
        drop(client);
        serve.join().unwrap().unwrap_err();
        (replies, answer.join().unwrap())
    }

    #[test]
    fn only_lists_and_signatures_pass() {
        const ADD: u8 = 17;
        const REMOVE_ALL: u8 = 19;
        const EXTENSION: u8 = 27;
        let sign = [SIGN_REQUEST, 1, 2, 3];
        let (replies, got) = talk(&[&[REQUEST_IDENTITIES], &[ADD, 9], &sign, &[REMOVE_ALL], &[EXTENSION], &[]]);
        assert_eq!(replies, [vec![12], vec![FAILURE], vec![14], vec![FAILURE], vec![FAILURE], vec![FAILURE]]);
        assert_eq!(got, [vec![REQUEST_IDENTITIES], sign.to_vec()]);
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_talk() {
        let mut text: &[u8] = &[0xff; 8];
        assert_eq!(message(&mut text).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
