//! See DESIGN: `sys`.
