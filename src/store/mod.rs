//! See DESIGN: `store`.
