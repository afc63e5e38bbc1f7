//! See DESIGN: `fsio`.
