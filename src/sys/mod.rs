//! sys

pub mod pid1;
