//! See DESIGN: `registry`.
