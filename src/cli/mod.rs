//! See DESIGN: `cli`.
