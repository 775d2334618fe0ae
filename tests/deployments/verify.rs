//! Two versions compared at the same offsets.
