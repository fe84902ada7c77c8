//! process

pub mod stat;
