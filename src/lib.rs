//! Rivermark.
