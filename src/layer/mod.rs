//! See DESIGN: `layer`.
