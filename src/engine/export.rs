//! Writes images out.
