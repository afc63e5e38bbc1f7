//! A process in namespaces: a plain [`SandboxSpec`] is compiled to a [`Program`], which a cloned child carries out.
//!
//! ```text
//! SandboxSpec ──compile (pure)──▶ Program ──spawn──▶ clone3 ─▶ child: one system call after the other ─▶ execve
//!                                    │                            │ the first that fails: (operation, errno)
//!                                    ▼                            ▼
//!                          text, golden-tested            SandboxError names the operation
//! ```
//!
//! | file | duty |
//! |---|---|
//! | `spec` | what a caller asks for |
//! | `defaults` | Docker's capability set, masked paths, devices |
//! | `program`, `compile` | the ordered operations, and how a spec becomes them (pure) |
//! | `seccomp` | the system calls that a step may make, as a BPF filter (pure) |
//! | `child` | carries a program out; allocates nothing |
//! | `spawn` | prepares descriptors, clones, reports, waits |
//! | `stubs` | mount points made in a root, and removed again without a trace |
//! | `terminal` | a pseudo-terminal that belongs to the sandbox |
//! | `userns` | becoming root in a user namespace, once, at the process's start |
//! | `facts`, `probe` | what this host allows |
//! | `emulation` | which other machines' programs it starts |
//!
//! The command itself is PID 1 of its pid namespace: nothing of ours remains in it, and when it ends the kernel
//! kills all that it started. A newcomer would expect `fork` and a set-up function in the child; the child of a
//! process with threads may not allocate, so everything is laid out before it exists.

mod child;
mod compile;
pub mod defaults;
pub mod emulation;
pub mod facts;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod privileged_tests;
pub mod probe;
pub mod program;
pub mod seccomp;
mod spawn;
pub mod spec;
pub mod stubs;
pub mod terminal;
pub mod userns;

pub use compile::compile;
pub use facts::HostFacts;
pub use program::Program;
pub use spawn::{Exit, Killer, Running, SandboxError, Stdio, spawn};
pub use spec::{MountSource, MountSpec, Network, Rlimit, RootMount, SandboxSpec, UserIds};
