//! `ply login`: credentials for a registry, tried there first, then kept where docker keeps them.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::registries;
use crate::cli::session::Session;
use crate::registry::{Client, Credential, Logins, host_of};
use crate::ui::out;

/// The longest password; tokens have a few kilobytes.
const PASSWORD_MAX_BYTES: u64 = 64 << 10;

/// Keep credentials for a registry
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// Its host [default: docker.io]
    #[arg(value_name = "HOST[:PORT]", default_value = "", hide_default_value = true)]
    pub host: String,
    /// The user
    #[arg(short, long)]
    pub username: Option<String>,
    /// The password; others on this machine can see it: better use --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

/// Tries the credentials, and keeps them.
pub fn run(args: &LoginArgs, session: &Session) -> Result<(), Failure> {
    let host = host_of(&args.host);
    let path = file(&session.env)?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => asked("Username: ", session, true)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => from_stdin()?,
        None => asked("Password: ", session, false)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::message("the user and the password must not be empty"));
    }
    let config = registries::config(&session.env)?;
    let client = Client::new(config.clone());
    let credential = Credential::Password { user: user.clone(), password: password.clone() };
    let asks = client.check_login(&host, &credential).map_err(|e| Failure::of(&e))?;
    if !asks {
        out::say(&format!("{host} asks for no credentials; they are kept all the same\n"));
    }
    let kept = Logins { path: path.clone(), config: &config }.keep(&host, &user, &password).map_err(|e| Failure::of(&e))?;
    Ok(out::line(&match kept {
        Some(helper) => format!("Logged in to {host}; the credential helper `{helper}` has the password"),
        None => format!("Logged in to {host}; the password is in {}, not encrypted", path.display()),
    })?)
}

/// Returns docker's configuration file, where logins are kept.
pub fn file(env: &Environment) -> Result<PathBuf, Failure> {
    env.docker_config()
        .ok_or_else(|| Failure::message("there is no home directory to keep credentials in").hint("set DOCKER_CONFIG to a directory"))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_MAX_BYTES).read_to_string(&mut text);
    read.map_err(|e| Failure::message(format!("reading the password: {e}")))?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_string())
}

/// Asks on the terminal; what must not be seen is not shown.
fn asked(question: &str, session: &Session, shown: bool) -> Result<String, Failure> {
    if !session.env.terminals.stdin {
        return Err(Failure::usage("standard input is no terminal to ask on").hint("give --username and --password-stdin"));
    }
    let failed = |e: std::io::Error| Failure::message(format!("asking: {e}"));
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(|e| failed(e.into()))?;
    out::say(question);
    let mut line = String::new();
    let read = if shown {
        stdin.lock().read_line(&mut line)
    } else {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|e| failed(e.into()))?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Now, &before).map_err(|e| failed(e.into()))?;
        out::say("\n");
        read
    };
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
