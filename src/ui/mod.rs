//! What people see: progress, tables, diagnostics, reports. The only printer of the program.
//!
//! Results go to standard output, everything else to standard error. Text that comes from outside (logs, file
//! names, messages of registries) passes [`text`] first, so that no control byte of it reaches a terminal.

pub mod checks;
pub mod diagnostic;
pub mod diff;
pub mod doctor;
pub mod human;
pub mod out;
pub mod outline;
pub mod page;
pub mod plan;
pub mod progress;
pub mod prometheus;
pub mod replay;
pub mod style;
pub mod table;
pub mod template;
pub mod text;
pub mod timings;
