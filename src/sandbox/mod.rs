//! See DESIGN: `sandbox`.
