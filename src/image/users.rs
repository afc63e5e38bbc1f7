//! Users and groups of an image.
