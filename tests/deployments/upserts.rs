//! Outputs that are tables.
