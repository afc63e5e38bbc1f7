//! See DESIGN: `cache`.
