//! See DESIGN: `runner`.
