//! See DESIGN: `ui`.
