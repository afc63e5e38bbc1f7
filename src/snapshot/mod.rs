//! See DESIGN: `snapshot`.
