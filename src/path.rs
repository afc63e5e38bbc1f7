//! See DESIGN: `path`.
