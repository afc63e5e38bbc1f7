//! The layer cache: what decides a step's result, where the results are kept, and why a step was not among them.
//!
//! Every input of a step, and whether it is in its key ([`key::KeyInputs`] can express nothing else):
//!
//! | input | in the key | why |
//! |---|---|---|
//! | format of the keys | yes | a program with other rules must not take over results |
//! | platform | yes | another program runs |
//! | parent state | by content | a parent that was rebuilt with an equal result changes nothing ([`key::StateId`]) |
//! | RUN: arguments, shell included | yes | what is done |
//! | RUN: environment, ARGs in scope | yes, in order | a process can see both |
//! | RUN: proxy variables | no | where a network is found, not what is fetched (BuildKit's rule) |
//! | RUN: heredoc scripts | name and content | read by the process |
//! | RUN: working directory, user, hostname | yes | seen by the process |
//! | RUN: network mode, `--security` | yes | what can be reached |
//! | RUN: `--ulimit`, `--shm-size` | yes | a build may fail or adapt; BuildKit has them too |
//! | RUN: `--add-host` | names | where they point to is this machine's affair |
//! | RUN: memory, CPU, pid limits | no | speed, not result |
//! | mount, any: target, kind, read-only | yes | seen by the process |
//! | mount, bind: what it shows | by content | as the parent; the path it came from is not seen |
//! | mount, cache: seed, mode, owner | yes | what an empty one looks like |
//! | mount, cache: id, sharing, contents | no | a cache must not decide results; whoever lets it gets what they get |
//! | mount, tmpfs: size | yes | seen by the process |
//! | mount, secret and ssh: id, required, variable, mode, owner | yes | seen by the process |
//! | mount, secret and ssh: value | no | it would leak into a record; rotating a token rebuilds nothing |
//! | COPY, ADD: files | by content | names, types, modes, owners, bytes, link targets, xattrs; no times |
//! | COPY, ADD: a source's name | base name | where it lay before is not in the result (with `--parents` it is: then all) |
//! | COPY, ADD: destination, `--chown`, `--chmod`, `--link`, `--parents`, `--exclude` | yes | part of the result |
//! | ADD: `--keep-git-dir`, `--unpack` | yes | part of the result |
//! | ADD: `--checksum` | no | what it proves is in the key by content: adding one to a build that is cached runs nothing |
//! | ADD: URL | no, its content (SHA-256) | as files; the base name counts |
//! | ADD: repository | no, its commit | with subdirectory, submodules or not; with `.git` also address and ref |
//! | ADD: a remote file's date | no | times are out everywhere |
//! | WORKDIR: path, user | yes | what is made, and whose |
//! | other files of the context, comments, CMD, LABEL, EXPOSE, … | no | no step's file system depends on them |
//! | `--label`, tags, outputs, progress, jobs | no | the configuration or the display, no layer |
//! | clock, host, user, store, driver, isolation | no | a step that shows them is not reproducible, and stays as first built |
//!
//! Pure: [`key`], [`derive`], [`align`], [`files`], [`miss`], [`record`], [`remote`]. [`index`] and [`log`] stand on the store;
//! [`worth`] says to it what records are worth.
//!
//! What a newcomer gets wrong: a **slot** never makes a hit. It remembers the last inputs of a place in a Dockerfile,
//! so that a miss can be told as a difference; hits come from keys alone.

pub mod align;
pub mod derive;
pub mod files;
pub mod index;
pub mod key;
pub mod log;
pub mod miss;
pub mod record;
pub mod remote;
pub mod state;
mod wire;
pub mod worth;
