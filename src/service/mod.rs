//! service

pub mod signal;
pub mod target;
pub mod text;
pub mod words;
